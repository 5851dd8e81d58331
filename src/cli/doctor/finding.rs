//! One thing that doctor has to say: what, why, and what to do. One line each.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mark {
    Ok,
    /// Pulls may go through the mirror all the same.
    Warn,
    /// They do not.
    Fail,
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) mark: Mark,
    /// The mirror, or an engine.
    pub(super) about: &'static str,
    pub(super) what: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) why: String,
    #[serde(rename = "do", skip_serializing_if = "String::is_empty")]
    pub(super) then: String,
}

impl Finding {
    pub(super) fn ok(about: &'static str, what: impl Into<String>) -> Finding {
        Finding { mark: Mark::Ok, about, what: what.into(), why: String::new(), then: String::new() }
    }

    pub(super) fn warn(about: &'static str, what: impl Into<String>) -> Finding {
        Finding { mark: Mark::Warn, ..Finding::ok(about, what) }
    }

    pub(super) fn fail(about: &'static str, what: impl Into<String>) -> Finding {
        Finding { mark: Mark::Fail, ..Finding::ok(about, what) }
    }

    pub(super) fn because(self, why: impl Into<String>) -> Finding {
        Finding { why: why.into(), ..self }
    }

    pub(super) fn then(self, then: impl Into<String>) -> Finding {
        Finding { then: then.into(), ..self }
    }

    /// The line. In colour if `colour`.
    pub(super) fn line(&self, colour: bool) -> String {
        let (mark, code) = match self.mark {
            Mark::Ok => ("ok  ", 32),
            Mark::Warn => ("warn", 33),
            Mark::Fail => ("fail", 31),
        };
        let mark = if colour { format!("\u{1b}[{code}m{mark}\u{1b}[0m") } else { mark.to_owned() };
        let mut line = format!("{mark}  {:<10}  {}", self.about, printable(&self.what));
        for part in [&self.why, &self.then] {
            if !part.is_empty() {
                line.push_str(": ");
                line.push_str(&printable(part));
            }
        }
        line
    }
}

/// Engines and mirrors choose some of this text: one line stays one, and no terminal is driven by it.
fn printable(text: &str) -> String {
    let mut printable = String::new();
    for c in text.chars() {
        printable.push(if c.is_control() { ' ' } else { c });
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_whatever_an_engine_said() {
        let finding = Finding::fail("docker", "x\ny").because("\u{1b}[2Jz").then("do it");
        assert_eq!(finding.line(false), "fail  docker      x y:  [2Jz: do it");
        assert!(finding.line(true).starts_with("\u{1b}[31mfail\u{1b}[0m  docker"));
        let json = serde_json::to_value(Finding::ok("mirror", "answers")).unwrap();
        assert_eq!(json, serde_json::json!({"mark": "ok", "about": "mirror", "what": "answers"}));
    }
}
