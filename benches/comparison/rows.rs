//! What is measured, row by row. In every run each mirror has its turn, so that what else happens on the machine meets all.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crate::cold::{self, HERD};
use crate::content::Content;
use crate::docker;
use crate::hot::{self, Fetching, MANIFEST_CONNECTIONS, Rate};
use crate::relay::{Line, Relay};
use crate::servers::{Mirror, Rig, Server};
use crate::table::{Column, Row, Unit};
use crate::{Options, Outcome, progress};

/// The line of the herd and of the first pull: near to what a gigabit carries.
const LINE: Line = Line { total: 100e6, each: None };
/// A line that is wider, where the other side gives each connection a share only.
const SHARED: Line = Line { total: 200e6, each: Some(20e6) };
/// For what is not about the line.
const FAST: Line = Line { total: 1e9, each: None };
/// The measure of all that is served from the cache.
const FILES: &str = "nginx, files";
/// Streams at one time, for memory.
const STREAMS: usize = 200;
/// How long a tag is believed where that matters; else it is never long enough to be asked about again.
const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(3600);

/// What the rows are about, for whoever reads the table.
pub const LEGEND: &str = "\
Upstream is docker-registry behind a relay of fixed speed; all of it runs on one machine and its loopback, \
and every server writes a line for each request to a file. \
**Herd:** 16 clients ask at once for one blob of 64 MiB that no mirror has, over a line of 100 MB/s. \
**Cold image:** a client fetches ten layers (199 MB) three at a time, as Docker does, and verifies them, over that line; \
or over one that gives each connection 20 MB/s, and 200 MB/s to all. \
**docker pull:** a real dockerd pulls and unpacks ten layers (210 MB, of 8 to 40 MB, of 2 to 100 MB, or one of 190 MB) over that one; \
only where there is one, and as root. \
**Hit:** what a mirror holds; CPU is the server's own, user and system. \
**Memory:** the most that was resident while 200 clients fetched 256 MiB each. \
**Upstream silent:** it accepts and never answers, and the mirror's `tag_ttl` is over. \
**Measure:** what the row can be held against; \"nginx, files\" is nginx serving the same content as plain files with sendfile. \
↑ more is better, ↓ less is better.";

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
        if !self.options.wants("herd") {
            return Vec::new();
        }
        let blob = self.content.herd.layers()[0];
        let mut rows = [
            Row::new("herd: bytes from upstream", Unit::Times, "each once"),
            Row::new("herd: the last one's first byte", Unit::Seconds, "one client, direct"),
            Row::new("herd: the last one's last byte", Unit::Seconds, "size ÷ line"),
        ];
        self.relay.set_line(LINE);
        let add = |rows: &mut [Row; 3], column: Column, values: [f64; 3]| {
            rows.iter_mut().zip(values).for_each(|(row, value)| row.add(column, value));
        };
        for run in 0..self.options.runs() {
            let direct = cold::herd(self.relay.address, self.relay, blob, 1);
            let bound = blob.size as f64 / LINE.total;
            if let Some(direct) = kept("herd", Column::Reference, direct) {
                add(&mut rows, Column::Reference, [1.0, direct.first_byte, bound]);
            }
            for mirror in turn(run) {
                let herd = self.cold(mirror).and_then(|server| cold::herd(server.address, self.relay, blob, HERD));
                if let Some(herd) = kept("herd", Column::Of(mirror), herd) {
                    add(&mut rows, Column::Of(mirror), [herd.sizes, herd.first_byte, herd.last_byte]);
                }
            }
        }
        rows.into()
    }

    /// One client on a cold image.
    pub fn pulls(&self) -> Vec<Row> {
        let pulls = [("cold image", LINE), ("cold image, each connection limited", SHARED)];
        let pulls = pulls.into_iter().filter(|(title, _)| self.options.wants(title));
        pulls.map(|(title, line)| self.pull(title, line, |address| cold::pull(address, &self.content.ten))).collect()
    }

    fn pull(&self, title: &str, line: Line, pull: impl Fn(SocketAddr) -> Outcome<f64>) -> Row {
        let mut row = Row::new(title, Unit::Seconds, "direct");
        self.relay.set_line(line);
        for run in 0..self.options.runs() {
            let mut add = |column: Column, seconds: Outcome<f64>| {
                self.relay.settle();
                kept(title, column, seconds).into_iter().for_each(|seconds| row.add(column, seconds));
            };
            add(Column::Reference, pull(self.relay.address));
            for mirror in turn(run) {
                let seconds = self.cold(mirror).and_then(|server| pull(server.address));
                add(Column::Of(mirror), seconds);
            }
        }
        row
    }

    /// A real Docker on cold images, over the line that gives each connection a share only.
    pub fn docker(&self) -> Vec<Row> {
        let titles = [
            "docker pull, cold, each connection limited",
            "docker pull, cold, one layer half of the image",
            "docker pull, cold, one layer nine tenths of it",
        ];
        let pulls = titles.into_iter().zip(&self.content.docker);
        let pulls = pulls.filter(|(title, _)| self.options.wants(title) && docker::is_here());
        pulls.map(|(title, image)| self.pull(title, SHARED, |address| docker::pull(address, image))).collect()
    }

    /// All that is served from the cache.
    pub fn hits(&self) -> Vec<Row> {
        let image = &self.content.hot;
        let connections = |count: usize| format!("{count} connection{}", if count == 1 { "" } else { "s" });
        let blobs = ["1 MiB", "256 MiB"].iter().zip(image.layers()).flat_map(|(size, &blob)| {
            [1, 8, 64].map(|count| (format!("hit: {size}, {}", connections(count)), blob, count))
        });
        let blobs: Vec<_> = blobs.filter(|(title, ..)| self.options.wants(title)).collect();
        let manifests = [("tag", image.by_tag()), ("digest", image.by_digest())]
            .map(|(name, path)| (format!("hit: manifest by {name}, {}", connections(MANIFEST_CONNECTIONS)), path));
        let manifests: Vec<_> = manifests.into_iter().filter(|(title, _)| self.options.wants(title)).collect();
        let memory = Some(format!("memory during {STREAMS} streams")).filter(|title| self.options.wants(title));
        if blobs.is_empty() && manifests.is_empty() && memory.is_none() {
            return Vec::new();
        }
        self.relay.set_line(FAST);
        let (running, mut rows) = (self.warm(LONG), Vec::new());
        for (title, blob, connections) in blobs {
            let measure = |server: &Server| hot::blobs(server, blob, self.fetching(connections));
            rows.extend(self.rates(&title, [Unit::Speed, Unit::Cpu], &running, measure));
        }
        for (title, path) in manifests {
            let measure = |server: &Server| hot::manifests(server, &path, self.options.window());
            rows.extend(self.rates(&title, [Unit::Requests, Unit::CpuOfRequests], &running, measure));
        }
        rows.extend(memory.map(|title| self.memory(&title, &running)));
        rows
    }

    fn fetching(&self, connections: usize) -> Fetching {
        Fetching { connections, window: self.options.window(), copying: self.options.copying_clients }
    }

    fn rates(
        &self,
        title: &str,
        [speed, cost]: [Unit; 2],
        running: &Running,
        measure: impl Fn(&Server) -> Outcome<Rate>,
    ) -> [Row; 2] {
        let mut rows = [Row::new(title, speed, FILES), Row::new(format!("{title}: CPU"), cost, FILES)];
        for run in 0..self.options.runs() {
            for (column, server) in self.everyone(running, run) {
                if let Some(rate) = kept(title, column, measure(server)) {
                    rows[0].add(column, rate.per_second);
                    rows[1].add(column, rate.cpu);
                }
            }
        }
        rows
    }

    fn memory(&self, title: &str, running: &Running) -> Row {
        let mut row = Row::new(title, Unit::Memory, FILES);
        for run in 0..self.options.runs() {
            for (column, server) in self.everyone(running, run) {
                let peak = hot::memory(server, self.content.hot.layers()[1], self.fetching(STREAMS));
                kept(title, column, peak).into_iter().for_each(|peak| row.add(column, peak));
            }
        }
        row
    }

    /// A tag that is here and whose time is over, while upstream is a black hole.
    pub fn outage(&self) -> Option<Row> {
        let (title, patience) = ("cached tag, upstream silent", self.options.patience());
        if !self.options.wants(title) {
            return None;
        }
        let mut row = Row::new(title, Unit::Seconds, "");
        let running = self.warm(SHORT);
        for run in 0..self.options.runs() {
            // Whoever asks upstream again has to do it now.
            self.relay.set_black_hole(false);
            for (_, server) in &running {
                let _ = hot::tag(server.address, &self.content.hot, patience);
            }
            thread::sleep(SHORT * 2);
            self.relay.set_black_hole(true);
            for (column, server) in self.everyone(&running, run) {
                if column == Column::Reference {
                    continue;
                }
                match kept(title, column, hot::tag(server.address, &self.content.hot, patience)) {
                    Some(Some((seconds, 200))) => row.add(column, seconds),
                    Some(Some((_, status))) => row.note(column, format!("status {status}")),
                    Some(None) => row.note(column, format!("none in {} s", patience.as_secs())),
                    None => {}
                }
            }
        }
        self.relay.set_black_hole(false);
        Some(row)
    }

    fn cold(&self, mirror: Mirror) -> Outcome<Server> {
        self.rig.mirror(mirror, self.relay.address, LONG)
    }

    /// One of each mirror, holding the hot image.
    fn warm(&self, tag_ttl: Duration) -> Running {
        let start = |mirror: Mirror| {
            let server = self.rig.mirror(mirror, self.relay.address, tag_ttl)?;
            hot::warm(server.address, self.relay, &self.content.hot)?;
            Ok(server)
        };
        let kept = |mirror| Some((Column::Of(mirror), kept("warm-up", Column::Of(mirror), start(mirror))?));
        Mirror::ALL.into_iter().filter_map(kept).collect()
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
fn kept<T>(what: &str, column: Column, outcome: Outcome<T>) -> Option<T> {
    match &outcome {
        Ok(_) => progress(&format!("{what}: {column}")),
        Err(error) => progress(&format!("{what}: {column}: FAILED: {error}")),
    }
    outcome.ok()
}
