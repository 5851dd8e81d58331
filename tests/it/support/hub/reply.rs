//! An answer in the making: the true one, what faults make of it, and how it goes out.

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use larder::oci::Digest;

use super::fault::{Fault, Rule};
use super::play::{Act, Play, Stop};
use crate::support::image::gzip;

/// An answer that has not gone out yet.
#[derive(Clone, Default)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers, without those of its framing.
    pub headers: HeaderMap,
    /// The whole content, whatever range of it was asked for.
    pub content: Bytes,
    /// The range that was asked for, and that `content` has.
    pub range: Option<(usize, usize)>,
    /// Whether it is a challenge.
    pub challenge: bool,
    flip: bool,
    halve: bool,
    surplus: u64,
    gzip: bool,
    chunked: bool,
    endless: bool,
    pace: Option<u64>,
    stops: Vec<Stop>,
}

impl Reply {
    /// An answer with a body.
    pub fn new(status: u16, content_type: &str, content: impl Into<Bytes>) -> Reply {
        let reply = Reply { status, content: content.into(), ..Reply::default() };
        reply.with(header::CONTENT_TYPE, content_type)
    }

    /// An error as registries write it.
    pub fn error(status: u16, code: &str, message: &str) -> Reply {
        let body = serde_json::json!({"errors": [{"code": code, "message": message, "detail": null}]});
        Reply::new(status, "application/json; charset=utf-8", body.to_string())
    }

    /// Sets a header.
    pub fn with(mut self, name: HeaderName, value: &str) -> Reply {
        self.headers.insert(name, HeaderValue::from_str(value).unwrap());
        self
    }

    /// Sets a header that has no constant.
    pub fn with_named(self, name: &'static str, value: &str) -> Reply {
        self.with(HeaderName::from_static(name), value)
    }

    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Lets a rule do its part, and counts it if that changes anything.
    pub fn suffer(&mut self, rule: &Rule, head: bool) {
        let has_body = !head && !self.content.is_empty();
        let stops = self.stops.len();
        let changed = match rule.fault() {
            Fault::Instead { status, headers, body } => {
                *self = Reply { status: *status, content: body.clone(), ..Reply::default() };
                self.headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
                true
            }
            Fault::WrongBytes => set(&mut self.flip, has_body),
            Fault::Truncated => set(&mut self.halve, self.content.len() > 1),
            Fault::GzipEncoding => {
                self.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                set(&mut self.gzip, !self.content.is_empty())
            }
            Fault::Endless => set(&mut self.endless, has_body),
            Fault::NoContentLength => set(&mut self.chunked, true),
            Fault::LongBody(n) => {
                self.surplus += n;
                *n > 0
            }
            Fault::Slow(rate) => {
                self.pace = Some(*rate);
                has_body
            }
            Fault::Stall(at) => self.stop(has_body, *at, Act::Hold(rule.clone())),
            Fault::ShortBody(at) => self.stop(has_body, *at, Act::Close(rule.clone())),
            Fault::ResetAfter(at) => self.stop(has_body, *at, Act::Reset(rule.clone())),
            Fault::IgnoreRange => self.forget_range(),
            Fault::WrongContentRange => self.shift_range(),
            Fault::LyingDigestHeader => {
                let lie = Digest::sha256(b"something else").to_string();
                self.replace(&HeaderName::from_static("docker-content-digest"), Some(&lie))
            }
            Fault::WrongContentType(value) => self.replace(&header::CONTENT_TYPE, value.as_deref()),
            Fault::Header(name, value) => self.replace(name, value.as_deref()),
            Fault::Realm(url) => self.rename_realm(url),
            // These happen around the answer, not to it: see `serve`.
            Fault::BlackHole | Fault::Reset | Fault::Hold => false,
        };
        // A stop counts itself when it is reached.
        if changed && self.stops.len() == stops {
            rule.hit();
        }
    }

    /// What goes out: status, headers with the framing, and how the body is played.
    pub fn finish(mut self, head: bool) -> (u16, HeaderMap, Play) {
        let mut body = match self.range {
            Some((start, end)) => self.content.slice(start..end),
            None => self.content.clone(),
        };
        if self.flip {
            let mut bytes = body.to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            body = bytes.into();
        }
        if self.halve {
            body.truncate(body.len() / 2);
        }
        if self.surplus > 0 {
            body = [body.as_ref(), &vec![b'+'; self.surplus as usize]].concat().into();
        }
        if self.gzip {
            body = gzip(&body);
        }
        let no_body = matches!(self.status, 204 | 304);
        if !self.chunked && !self.endless && !no_body {
            self.headers.insert(header::CONTENT_LENGTH, body.len().into());
        }
        if head || no_body {
            body.clear();
        }
        let last = (body.len() as u64).saturating_sub(1);
        if !self.endless {
            self.stops.iter_mut().for_each(|stop| stop.at = stop.at.min(last));
        }
        self.stops.sort_by_key(|stop| stop.at);
        (self.status, self.headers, Play::new(body, self.endless, self.pace, self.stops))
    }

    fn stop(&mut self, has_body: bool, at: u64, act: Act) -> bool {
        if has_body {
            self.stops.push(Stop { at, act });
        }
        has_body
    }

    fn replace(&mut self, name: &HeaderName, value: Option<&str>) -> bool {
        let old = match value {
            Some(value) => self.headers.insert(name, HeaderValue::from_str(value).unwrap()),
            None => self.headers.remove(name),
        };
        old.as_ref().map(|old| old.to_str().unwrap()) != value
    }

    fn forget_range(&mut self) -> bool {
        if self.status != 206 {
            return false;
        }
        self.status = 200;
        self.range = None;
        self.headers.remove(header::CONTENT_RANGE);
        true
    }

    /// One byte later, or, where there is none, one byte earlier.
    fn shift_range(&mut self) -> bool {
        let Some((start, end)) = self.range.filter(|_| self.content.len() > 1) else { return false };
        let start = if start + 1 < end { start + 1 } else { start.saturating_sub(1) };
        self.set_range(start, end);
        true
    }

    /// Makes it a 206.
    pub fn set_range(&mut self, start: usize, end: usize) {
        let value = format!("bytes {start}-{}/{}", end - 1, self.content.len());
        self.headers.insert(header::CONTENT_RANGE, value.parse().unwrap());
        self.status = 206;
        self.range = Some((start, end));
    }

    fn rename_realm(&mut self, url: &str) -> bool {
        let Some(old) = self.headers.get(header::WWW_AUTHENTICATE) else { return false };
        let old = old.to_str().unwrap().to_owned();
        let (before, rest) = old.split_once("realm=\"").unwrap();
        let (_, after) = rest.split_once('"').unwrap();
        self.replace(&header::WWW_AUTHENTICATE, Some(&format!("{before}realm=\"{url}\"{after}")))
    }
}

fn set(flag: &mut bool, to: bool) -> bool {
    *flag |= to;
    to
}
