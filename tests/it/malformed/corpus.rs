//! The requests: a good one each, with one part of it, or a few of its bytes, made bad.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::heads::{CHUNKS, HEADERS, METHODS, RANGES, VERSIONS};
use super::targets::{DIGEST, PATHS, QUERIES, REFERENCES, REPOSITORY, TARGETS};

const COUNT: usize = 10_000;
const SEED: u64 = 0x1a4de4;

/// What makes one request with a bad part. As many of each kind, and of mutated ones, one after the other.
const MAKERS: [fn(&mut StdRng) -> Request; 10] =
    [name, reference, range, query, header, many_headers, framing, request_line, percent, long];

/// Ten thousand raw requests, the same in every run. Each is meant as one request; none asks for the connection to stay.
pub fn corpus() -> impl Iterator<Item = Vec<u8>> {
    let mut dice = StdRng::seed_from_u64(SEED);
    (0..COUNT).map(move |at| match MAKERS.get(at % (MAKERS.len() + 1)) {
        Some(make) => make(&mut dice).encode(),
        None => mutated(&mut dice),
    })
}

/// The parts of a request as they will stand on the wire, whatever they are.
struct Request {
    method: Vec<u8>,
    target: Vec<u8>,
    version: Vec<u8>,
    headers: Vec<Vec<u8>>,
    body: Vec<u8>,
    line_end: &'static [u8],
}

impl Request {
    fn new(method: &str, target: impl Into<Vec<u8>>) -> Request {
        Request {
            method: method.into(),
            target: target.into(),
            version: b"HTTP/1.1".into(),
            headers: vec![b"Host: larder".into()],
            body: Vec::new(),
            line_end: b"\r\n",
        }
    }

    fn header(mut self, line: impl Into<Vec<u8>>) -> Request {
        self.headers.push(line.into());
        self
    }

    fn encode(&self) -> Vec<u8> {
        let first = [self.method.as_slice(), &self.target, &self.version].join(b" ".as_slice());
        let mut wire = first;
        for line in &self.headers {
            wire.extend_from_slice(self.line_end);
            wire.extend_from_slice(line);
        }
        wire.extend_from_slice(self.line_end);
        wire.extend_from_slice(self.line_end);
        wire.extend_from_slice(&self.body);
        wire
    }
}

fn one<T: Copy>(of: &[T], dice: &mut StdRng) -> T {
    *of.choose(dice).unwrap()
}

/// A target that is good if `name` and `reference` are.
fn target(name: &[u8], reference: &[u8], dice: &mut StdRng) -> Vec<u8> {
    let kind: &[u8] = one(&[b"manifests", b"blobs", b"referrers", b"tags"], dice);
    let reference = if kind == b"tags" { b"list" } else { reference };
    [b"/v2/", name, b"/", kind, b"/", reference].concat()
}

fn good_target(dice: &mut StdRng) -> Vec<u8> {
    match dice.random_range(0..8) {
        0 => b"/v2/".into(),
        1 => b"/v2/_catalog".into(),
        2 => target(REPOSITORY.as_bytes(), b"latest", dice),
        _ => target(REPOSITORY.as_bytes(), DIGEST.as_bytes(), dice),
    }
}

fn reading(dice: &mut StdRng) -> &'static str {
    one(&["GET", "GET", "GET", "HEAD"], dice)
}

fn good(dice: &mut StdRng) -> Request {
    let target = good_target(dice);
    Request::new(reading(dice), target)
}

fn name(dice: &mut StdRng) -> Request {
    let mut parts: Vec<&[u8]> = vec![one(PATHS, dice)];
    if dice.random() {
        parts.insert(dice.random_range(0..2), one(&[b"library".as_slice(), b"alpine", b"a/b/c"], dice));
    }
    if dice.random_ratio(1, 4) {
        parts.push(one(PATHS, dice));
    }
    let reference = one(&[b"latest".as_slice(), DIGEST.as_bytes(), b"3.20"], dice);
    Request::new(
        one(&["GET", "HEAD", "PUT", "DELETE", "POST"], dice),
        target(&parts.join(b"/".as_slice()), reference, dice),
    )
}

fn reference(dice: &mut StdRng) -> Request {
    let reference = if dice.random_ratio(1, 4) { one(PATHS, dice) } else { one(REFERENCES, dice) };
    Request::new(reading(dice), target(REPOSITORY.as_bytes(), reference, dice))
}

fn range(dice: &mut StdRng) -> Request {
    let range = match dice.random_range(0..3) {
        0 => format!("bytes={}-{}", dice.random::<u64>() >> dice.random_range(0..64), dice.random::<u32>()),
        1 if dice.random_ratio(1, 8) => format!("bytes={}", vec!["0-0"; dice.random_range(2..2000)].join(",")),
        _ => one(RANGES, dice).to_owned(),
    };
    let target = format!("/v2/{REPOSITORY}/{}/{DIGEST}", one(&["blobs", "blobs", "manifests"], dice));
    let request = Request::new(reading(dice), target).header(format!("Range: {range}"));
    match dice.random_range(0..4) {
        0 => request.header(format!("If-Range: \"{DIGEST}\"")),
        1 => request.header("If-Range: W/\"x\""),
        _ => request,
    }
}

fn query(dice: &mut StdRng) -> Request {
    let count = dice.random_range(1..4);
    let queries: Vec<&[u8]> = (0..count).map(|_| one(QUERIES, dice)).collect();
    let target = [good_target(dice), queries.join(b"&".as_slice())].join(b"?".as_slice());
    Request::new(reading(dice), target)
}

fn header(dice: &mut StdRng) -> Request {
    let mut request = good(dice);
    if dice.random_ratio(1, 10) {
        request.headers.clear();
    }
    for _ in 0..dice.random_range(1..4) {
        let at = dice.random_range(0..=request.headers.len());
        request.headers.insert(at, one(HEADERS, dice).into());
    }
    if dice.random_ratio(1, 3) {
        request.body = b"{}".into();
    }
    request
}

fn many_headers(dice: &mut StdRng) -> Request {
    let mut request = good(dice);
    match dice.random_range(0..3) {
        0 => {
            let count = dice.random_range(50..400);
            request.headers.extend((0..count).map(|number| format!("X-{number}: {number}").into_bytes()));
        }
        1 => request.headers.push([b"X-Long: ".as_slice(), &vec![b'a'; dice.random_range(1000..70_000)]].concat()),
        _ => request.headers.extend(vec![b"Accept: application/json".to_vec(); dice.random_range(2..70)]),
    }
    request
}

fn framing(dice: &mut StdRng) -> Request {
    let target = match dice.random_range(0..3) {
        0 => format!("/v2/{REPOSITORY}/blobs/uploads/"),
        1 => format!("/v2/{REPOSITORY}/blobs/uploads/x?digest={DIGEST}"),
        _ => format!("/v2/{REPOSITORY}/manifests/latest"),
    };
    let mut request = Request::new(one(&["POST", "PATCH", "PUT", "GET", "DELETE", "HEAD"], dice), target);
    if dice.random() {
        request.headers.push(b"Transfer-Encoding: chunked".into());
        request.body = one(CHUNKS, dice).into();
    } else {
        request.headers.push(format!("Content-Length: {}", dice.random_range(0..9)).into());
        request.body = vec![b'{'; dice.random_range(0..9)];
    }
    if dice.random_ratio(1, 3) {
        request.headers.push(one(HEADERS, dice).into());
    }
    request
}

fn request_line(dice: &mut StdRng) -> Request {
    let mut request = good(dice);
    for _ in 0..dice.random_range(1..3) {
        match dice.random_range(0..5) {
            0 => request.method = one(METHODS, dice).into(),
            1 | 2 => request.target = one(TARGETS, dice).into(),
            3 => request.version = one(VERSIONS, dice).into(),
            _ => request.line_end = one(&[b"\n".as_slice(), b"\r", b"\r\r\n", b"\n\r"], dice),
        }
    }
    request
}

/// A good target, some of whose characters are escaped once, twice, or wrongly.
fn percent(dice: &mut StdRng) -> Request {
    let mut spoilt = Vec::new();
    for byte in good_target(dice) {
        match dice.random_range(0..24) {
            0 => spoilt.extend(format!("%{byte:02x}").bytes()),
            1 => spoilt.extend(format!("%{byte:02X}").bytes()),
            2 => spoilt.extend(format!("%25{byte:02x}").bytes()),
            3 => spoilt.extend(format!("%{:02x}", dice.random::<u8>()).bytes()),
            4 => spoilt.extend([b'%', byte]),
            _ => spoilt.push(byte),
        }
    }
    Request::new(reading(dice), spoilt)
}

/// More of something than there may be: up to 4 KiB, and sometimes more than any head may have.
fn long(dice: &mut StdRng) -> Request {
    let most = if dice.random_ratio(1, 10) { 80_000 } else { 4096 };
    let length = dice.random_range(100..most);
    let unit: &[u8] = one(&[b"a", b"a/", b"%61", b"a-", b"..", b"%2e%2e/", b"\xc3\xa4", b"0", b"f"], dice);
    let much = unit.repeat(length / unit.len());
    let target = match dice.random_range(0..5) {
        0 => target(&much, b"latest", dice),
        1 => target(REPOSITORY.as_bytes(), &much, dice),
        2 => target(REPOSITORY.as_bytes(), &[b"sha256:".as_slice(), &much].concat(), dice),
        3 => [good_target(dice), much].join(one(&[b"?ns=".as_slice(), b"?last=", b"?n=", b"?"], dice)),
        _ => target(&[b"library/".as_slice(), &much].concat(), DIGEST.as_bytes(), dice),
    };
    Request::new(reading(dice), target)
}

/// A few bytes of a good request changed, added, taken away, or all of it from some place on.
fn mutated(dice: &mut StdRng) -> Vec<u8> {
    let request = good(dice).header("Accept: */*").header("User-Agent: docker/29.0.0");
    let mut wire = request.encode();
    for _ in 0..dice.random_range(1..9) {
        let at = dice.random_range(0..wire.len());
        match dice.random_range(0..12) {
            0..4 => wire[at] = dice.random(),
            4..6 => wire[at] ^= 1 << dice.random_range(0..8),
            6..8 => wire.insert(at, dice.random()),
            8..10 => drop(wire.remove(at)),
            10 => {
                let piece = wire[at..(at + 20).min(wire.len())].to_vec();
                wire.splice(at..at, piece);
            }
            _ => wire.truncate(at.max(20)),
        }
    }
    wire
}
