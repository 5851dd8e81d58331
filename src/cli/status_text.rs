//! What `larder status` prints: the server's JSON, as people read it. Pure; a field that is not there is left out.

use std::fmt::Write;

use bytesize::ByteSize;
use serde_json::Value;

/// Pulls that are listed; `/api/budget` has more.
const LISTED: usize = 10;

/// The text for `/api/status` and `/api/budget`.
pub(super) fn render(status: &Value, budget: &Value) -> String {
    let mut text = String::new();
    let now = status["now"].as_u64().unwrap_or_default();
    // Writing to a text does not fail.
    let _ = write_all(&mut text, status, budget, now);
    text
}

fn write_all(text: &mut String, status: &Value, budget: &Value, now: u64) -> std::fmt::Result {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let version = status["version"].as_str().unwrap_or("of an unknown version");
    writeln!(text, "larder {version}, up {}", span(number(&status["uptime_s"])))?;
    let size = ByteSize(number(&status["cache"]["bytes"])).display().iec();
    let (blobs, fills) = (number(&status["cache"]["blobs"]), number(&status["fills_in_flight"]));
    writeln!(text, "cache: {size} in {blobs} blobs, {fills} being fetched")?;
    writeln!(text, "answers: {}", answers(&status["requests"]))?;
    for upstream in array(&status["upstreams"]) {
        write_host(text, upstream["name"].as_str().unwrap_or_default(), &upstream["registry"], now)?;
        for fallback in array(&upstream["fallbacks"]) {
            let name = format!("  fallback {}", fallback["host"].as_str().unwrap_or_default());
            write_host(text, &name, fallback, now)?;
        }
    }
    for account in array(&budget["accounts"]) {
        write_account(text, account, now)?;
    }
    let spent = array(&budget["spent"]);
    if !spent.is_empty() {
        writeln!(text, "last pulls that counted:")?;
    }
    for pull in spent.iter().take(LISTED) {
        let (image, whom) =
            (pull["image"].as_str().unwrap_or_default(), pull["on_behalf_of"].as_str().unwrap_or_default());
        let upstream = pull["upstream"].as_str().unwrap_or_default();
        writeln!(text, "  {}  {upstream}/{image}, for {whom}", hour(number(&pull["at"])))?;
    }
    Ok(())
}

fn write_host(text: &mut String, name: &str, host: &Value, now: u64) -> std::fmt::Result {
    let parts = array(&host["parts"]);
    if parts.iter().all(|part| part["state"] == "up") {
        return writeln!(text, "{name}: up");
    }
    writeln!(text, "{name}:")?;
    for part in parts {
        let state = match part["state"].as_str() {
            Some("down") => "out of order",
            Some("doubtful") => "in doubt",
            Some(state) => state,
            None => "unknown",
        };
        write!(text, "    {}: {state}", part["part"].as_str().unwrap_or_default())?;
        if let Some(since) = part["since"].as_u64() {
            write!(text, " since {} ({})", hour(since), span(now.saturating_sub(since)))?;
        }
        match part["reason"].as_str() {
            Some(reason) => writeln!(text, ": {}", printable(reason))?,
            None => writeln!(text)?,
        }
    }
    Ok(())
}

fn write_account(text: &mut String, account: &Value, now: u64) -> std::fmt::Result {
    let (upstream, name) =
        (account["upstream"].as_str().unwrap_or_default(), account["name"].as_str().unwrap_or_default());
    write!(text, "budget of {upstream}, {name}: ")?;
    match (account["remaining"].as_u64(), account["limit"].as_u64()) {
        (Some(remaining), Some(limit)) => write!(text, "{remaining} of {limit} pulls left")?,
        _ => write!(text, "no limit was told")?,
    }
    if let Some(window) = account["window_s"].as_u64() {
        write!(text, " in {}", span(window))?;
    }
    if let Some(told) = account["told"].as_u64() {
        write!(text, ", told {} ago", span(now.saturating_sub(told)))?;
    }
    if let Some(until) = account["limited_until"].as_u64().filter(|until| *until > now) {
        write!(text, "; limited for {}", span(until - now))?;
    }
    writeln!(text)
}

/// `1200, of which 1000 hit, 150 miss, 50 stale`.
fn answers(requests: &Value) -> String {
    let counts: Vec<(&str, u64)> = requests
        .as_object()
        .into_iter()
        .flatten()
        .map(|(outcome, count)| (if outcome == "none" { "other" } else { outcome }, count.as_u64().unwrap_or_default()))
        .collect();
    let total: u64 = counts.iter().map(|(_, count)| count).sum();
    let parts: Vec<String> = counts.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
    if parts.is_empty() { "none yet".to_owned() } else { format!("{total}, of which {}", parts.join(", ")) }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// `12:03 UTC`.
fn hour(unix_seconds: u64) -> String {
    let minutes = unix_seconds / 60 % (24 * 60);
    format!("{:02}:{:02} UTC", minutes / 60, minutes % 60)
}

/// The two largest units of a time: `4 min`, `3 h 12 min`, `2 d 1 h`.
fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let both = |large: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {unit}"),
        small => format!("{large} {unit} {small} {small_unit}"),
    };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => both(hours, "h", minutes % 60, "min"),
        (days, hours, _) => both(days, "d", hours % 24, "h"),
    }
}

/// A stranger's words, on one line and without what would move a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_reads_like_a_sentence_or_two() {
        let part = |name, state, since: Option<u64>, reason: Option<&str>| json!({"part": name, "state": state, "since": since, "reason": reason});
        let down = json!([
            part("registry", "down", Some(43_380), Some("connection refused\u{1b}")),
            part("token", "up", None, None)
        ]);
        let status = json!({
            "version": "1.2.3", "now": 43_620, "uptime_s": 11_520, "fills_in_flight": 3,
            "cache": {"blobs": 7, "bytes": 1_073_741_824u64}, "requests": {"hit": 10, "none": 1},
            "upstreams": [
                {"name": "docker.io", "registry": {"parts": down}, "fallbacks": []},
                {"name": "ghcr.io", "registry": {"parts": [part("registry", "up", None, None)]}, "fallbacks": []},
            ],
        });
        let budget = json!({
            "accounts": [{
                "upstream": "docker.io", "name": "anonymous", "limit": 100, "remaining": 87, "window_s": 21_600,
                "told": 43_560, "limited_until": 43_680,
            }],
            "spent": [{"at": 43_500, "upstream": "docker.io", "image": "library/a:1", "on_behalf_of": "10.0.0.7"}],
        });
        let expected = "\
larder 1.2.3, up 3 h 12 min
cache: 1.0 GiB in 7 blobs, 3 being fetched
answers: 11, of which 10 hit, 1 other
docker.io:
    registry: out of order since 12:03 UTC (4 min): connection refused\u{20}
    token: up
ghcr.io: up
budget of docker.io, anonymous: 87 of 100 pulls left in 6 h, told 1 min ago; limited for 1 min
last pulls that counted:
  12:05 UTC  docker.io/library/a:1, for 10.0.0.7
";
        assert_eq!(render(&status, &budget), expected);
        assert!(
            render(&json!({}), &json!([])).starts_with("larder of an unknown version"),
            "an older server is no crash"
        );
    }
}
