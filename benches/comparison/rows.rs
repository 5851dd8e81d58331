//! What is measured, row by row. In every run each mirror has its turn, so that what else happens on the machine meets all.

use std::thread;
use std::time::Duration;

use crate::cold::{self, AT_A_TIME, HERD};
use crate::content::{Content, Image};
use crate::hot::{self, MANIFEST_CONNECTIONS, Rate};
use crate::relay::{Line, Relay};
use crate::servers::{Mirror, Rig, Server};
use crate::table::{Column, Row, Unit};
use crate::{Options, Outcome, progress};

/// The line of the herd and of the first pull: near to what a gigabit carries.
const LINE: Line = Line { total: 100e6, each: None };
/// A line that is wider, where the other side gives each connection a share only.
const SHARED: Line = Line { total: 200e6, each: Some(20e6) };
/// Streams at one time, for memory.
const STREAMS: usize = 200;
/// How long a tag is believed where that matters; else it is never long enough to be asked about again.
const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(3600);

/// Everything that a measurement needs.
pub struct Bench<'a> {
    /// How long, how often.
    pub options: &'a Options,
    /// Starts servers.
    pub rig: &'a Rig,
    /// The line.
    pub relay: &'a Relay,
    /// The images.
    pub content: &'a Content,
    /// nginx with the hot image as files.
    pub files: &'a Server,
}

type Running = Vec<(Column, Server)>;

impl Bench<'_> {
    /// A herd on one cold blob.
    pub fn herd(&self) -> Vec<Row> {
        let blob = self.content.herd.layers()[0];
        let title = |what: &str| format!("{HERD} clients, one cold blob of 64 MiB, line of 100 MB/s: {what}");
        let mut rows = [
            Row::new(title("bytes from upstream"), Unit::Times, "each byte once"),
            Row::new(title("until the last client has its first byte"), Unit::Seconds, "one client, direct"),
            Row::new(title("until the last client has it all"), Unit::Seconds, "size ÷ line"),
        ];
        self.relay.set_line(LINE);
        let add = |rows: &mut [Row; 3], column: Column, values: [f64; 3]| {
            rows.iter_mut().zip(values).for_each(|(row, value)| row.add(column, value));
        };
        for run in 0..self.options.runs() {
            let direct = cold::herd(self.relay.address, self.relay, blob, 1);
            let bound = blob.size as f64 / LINE.total;
            if let Some(direct) = kept("herd, direct", direct) {
                add(&mut rows, Column::Reference, [1.0, direct.first_byte, bound]);
            }
            for mirror in turn(run) {
                let herd = self.cold(mirror).and_then(|server| cold::herd(server.address, self.relay, blob, HERD));
                if let Some(herd) = kept(&format!("herd, {mirror:?}"), herd) {
                    add(&mut rows, Column::Of(mirror), [herd.sizes, herd.first_byte, herd.last_byte]);
                }
            }
        }
        rows.into()
    }

    /// One client on a cold image.
    pub fn pulls(&self) -> Vec<Row> {
        let image = &self.content.ten;
        let title = |line: &str| {
            format!("cold image of 10 layers, {} MB, {AT_A_TIME} at a time, {line}", image.size() / 1_000_000)
        };
        let lines = [("line of 100 MB/s", LINE), ("20 MB/s for each connection, 200 MB/s in all", SHARED)];
        lines.map(|(name, line)| self.pull(&title(name), line, image)).into()
    }

    fn pull(&self, title: &str, line: Line, image: &Image) -> Row {
        let mut row = Row::new(title, Unit::Seconds, "direct");
        self.relay.set_line(line);
        for run in 0..self.options.runs() {
            let mut add = |column: Column, name: &str, seconds: Outcome<f64>| {
                self.relay.settle();
                kept(name, seconds).into_iter().for_each(|seconds| row.add(column, seconds));
            };
            add(Column::Reference, "pull, direct", cold::pull(self.relay.address, image));
            for mirror in turn(run) {
                let seconds = self.cold(mirror).and_then(|server| cold::pull(server.address, image));
                add(Column::Of(mirror), &format!("pull, {mirror:?}"), seconds);
            }
        }
        row
    }

    /// All that is served from the cache.
    pub fn hits(&self) -> Outcome<Vec<Row>> {
        self.relay.set_line(Line { total: 1e9, each: None });
        let image = &self.content.hot;
        let running = self.warm(LONG)?;
        let mut rows = Vec::new();
        for (size, &blob) in ["1 MiB", "256 MiB"].iter().zip(image.layers()) {
            for connections in [1, 8, 64] {
                let title = format!("hit, {size}, {connections} connections");
                let units = [Unit::Speed, Unit::Cpu];
                let window = self.options.window();
                rows.extend(
                    self.rates(&title, units, &running, |server| hot::blobs(server, blob, connections, window)),
                );
            }
        }
        for (name, path) in [("tag", image.by_tag()), ("digest", image.by_digest())] {
            let title = format!("manifest by {name}, {MANIFEST_CONNECTIONS} connections");
            let units = [Unit::Requests, Unit::CpuOfRequests];
            let window = self.options.window();
            rows.extend(self.rates(&title, units, &running, |server| hot::manifests(server, &path, window)));
        }
        rows.push(self.memory(&running));
        Ok(rows)
    }

    fn rates(
        &self,
        title: &str,
        [speed, cost]: [Unit; 2],
        running: &Running,
        measure: impl Fn(&Server) -> Outcome<Rate>,
    ) -> [Row; 2] {
        let mut rows = [
            Row::new(title, speed, "nginx, the same files"),
            Row::new(format!("{title}: the server's processor time"), cost, "nginx, the same files"),
        ];
        for run in 0..self.options.runs() {
            for (column, server) in self.everyone(running, run) {
                if let Some(rate) = kept(title, measure(server)) {
                    rows[0].add(column, rate.per_second);
                    rows[1].add(column, rate.cpu);
                }
            }
        }
        rows
    }

    fn memory(&self, running: &Running) -> Row {
        let title = format!("memory, the most during {STREAMS} streams of 256 MiB");
        let mut row = Row::new(&title, Unit::Memory, "nginx, the same files");
        for run in 0..self.options.runs() {
            for (column, server) in self.everyone(running, run) {
                let peak = hot::memory(server, self.content.hot.layers()[1], STREAMS, self.options.window());
                kept(&title, peak).into_iter().for_each(|peak| row.add(column, peak));
            }
        }
        row
    }

    /// A tag that is here and whose time is over, while upstream is a black hole.
    pub fn outage(&self) -> Outcome<Vec<Row>> {
        let patience = self.options.patience();
        let title = format!("cached tag, upstream accepts and never answers (waited for {} s)", patience.as_secs());
        let mut row = Row::new(&title, Unit::Seconds, "");
        let running = self.warm(SHORT)?;
        // Whoever asks upstream again has to do it now.
        thread::sleep(SHORT * 2);
        self.relay.set_black_hole(true);
        for (column, server) in &running {
            match kept(&title, hot::tag_in_an_outage(server.address, &self.content.hot, patience)) {
                Some(Some((seconds, 200))) => row.add(*column, seconds),
                Some(Some((_, status))) => row.note(*column, format!("status {status}")),
                Some(None) => row.note(*column, format!("no answer in {} s", patience.as_secs())),
                None => {}
            }
        }
        self.relay.set_black_hole(false);
        Ok(vec![row])
    }

    fn cold(&self, mirror: Mirror) -> Outcome<Server> {
        self.rig.mirror(mirror, self.relay.address, LONG)
    }

    /// One of each mirror, holding the hot image.
    fn warm(&self, tag_ttl: Duration) -> Outcome<Running> {
        let start = |mirror: Mirror| {
            let server = self.rig.mirror(mirror, self.relay.address, tag_ttl)?;
            hot::warm(server.address, self.relay, &self.content.hot)?;
            Ok((Column::Of(mirror), server))
        };
        Mirror::ALL.into_iter().map(start).collect()
    }

    /// All mirrors and the measure, beginning with another one in each run.
    fn everyone<'a>(&'a self, running: &'a Running, run: usize) -> Vec<(Column, &'a Server)> {
        let mut all: Vec<(Column, &Server)> = running.iter().map(|(column, server)| (*column, server)).collect();
        all.push((Column::Reference, self.files));
        let first = run % all.len();
        all.rotate_left(first);
        all
    }
}

fn turn(run: usize) -> [Mirror; 3] {
    let mut mirrors = Mirror::ALL;
    mirrors.rotate_left(run % Mirror::ALL.len());
    mirrors
}

/// A measurement that failed is said to have, and leaves its place in the table empty; the others go on.
fn kept<T>(what: &str, outcome: Outcome<T>) -> Option<T> {
    match &outcome {
        Ok(_) => progress(what),
        Err(error) => progress(&format!("{what}: FAILED: {error}")),
    }
    outcome.ok()
}
