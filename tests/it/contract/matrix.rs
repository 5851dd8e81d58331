//! Every shape of failure × what is asked for × what is here × whether the failure is news: the answer, cell by cell.
//!
//! What is here is served in every row, so those cells are not in the table: see [`Case::served_as_ever`].

use std::time::Duration;

use larder::oci::Digest;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::shapes::Shape;
use crate::support::client::{Answer, Call, PATIENCE};
use crate::support::hub::{Hub, Seen, Target};
use crate::support::image::Image;
use crate::support::larder::Larder;

/// The answers to the first who meets the failure, and to those who come when it is known.
type Answers = [&'static str; 2];

/// One shape of failure.
struct Row {
    shape: Shape,
    /// A tag whose image is here, and which upstream has not confirmed for longer than `tag_ttl`.
    stale: Answers,
    /// A tag that was never pulled.
    absent: Answers,
    /// Like `stale`, but a layer of the image is not here.
    incomplete: Answers,
    /// A layer that is not here, once the failure is known. Never a 5xx: Docker repeats one for 75 s (rule 8).
    layer: &'static str,
}

const GONE: Row = Row {
    shape: Shape::Refused,
    stale: ["200 stale", "200 stale"],
    absent: ["503", "503"],
    // Its tag would lead Podman to a failed pull and Docker to long repetitions (pitfall 27).
    incomplete: ["503", "503"],
    layer: "404",
};

/// What a healthy registry says is believed where nothing is here, and never takes away what is.
const SAYS_NO: Row = Row {
    shape: Shape::NotFoundSpoken,
    stale: ["200 stale", "200 stale"],
    absent: ["404", "404"],
    // Blobs can still be had.
    incomplete: ["200 stale", "200 stale"],
    layer: "200 miss",
};

/// The registry is well: tags are confirmed. Only content cannot be had.
const NO_CONTENT: Row = Row {
    shape: Shape::CdnRefused,
    stale: ["200 revalidated", "200 hit"],
    // The first pull cannot know; from then on an image that cannot be completed is not offered.
    absent: ["200 miss", "503"],
    incomplete: ["200 revalidated", "503"],
    layer: "404",
};

const TABLE: &[Row] = &[
    GONE,
    Row { shape: Shape::Silent, ..GONE },
    Row { shape: Shape::BlackHole, ..GONE },
    Row { shape: Shape::Reset, ..GONE },
    Row { shape: Shape::Error500, ..GONE },
    Row { shape: Shape::Gateway503, ..GONE },
    Row { shape: Shape::NotFoundText, ..GONE },
    Row { shape: Shape::MethodNotAllowed, ..GONE },
    Row { shape: Shape::Portal, ..GONE },
    Row { shape: Shape::RegistryRefused, ..GONE },
    Row { shape: Shape::Untrusted, ..GONE },
    Row { shape: Shape::TokenError, ..GONE },
    Row { shape: Shape::TokenRefused, ..GONE },
    Row { shape: Shape::TokenSilent, ..GONE },
    SAYS_NO,
    Row { shape: Shape::Unauthorized, ..SAYS_NO },
    Row { shape: Shape::Denied, ..SAYS_NO },
    Row {
        shape: Shape::HeadRefused,
        // Not worth a pull while there is a copy at hand; without one, GET is the only way.
        absent: ["200 miss", "200 miss"],
        ..SAYS_NO
    },
    Row {
        shape: Shape::PullLimit,
        // HEAD is free, and GET of blobs is not limited.
        stale: ["200 revalidated", "200 hit"],
        absent: ["503", "503"],
        incomplete: ["200 revalidated", "200 hit"],
        layer: "200 miss",
    },
    Row {
        shape: Shape::AbuseLimit,
        // It passes by itself: what is missing may be had when the client gets to it.
        incomplete: ["200 stale", "200 stale"],
        ..GONE
    },
    NO_CONTENT,
    Row { shape: Shape::CdnSilent, ..NO_CONTENT },
    Row { shape: Shape::CdnDenies, ..NO_CONTENT },
    Row { shape: Shape::CdnStalls, ..NO_CONTENT },
];

/// The lifetime of a tag, and a second.
const EXPIRED: Duration = Duration::from_secs(301);
/// Longer than `connect_timeout` and `header_timeout` below together: only a hang takes so long.
const HANG: Duration = Duration::from_secs(15);
const LIMITS: &str = "connect_timeout = \"1s\"\nheader_timeout = \"2s\"\nstall_timeout = \"500ms\"";

/// A mirror with a past, in front of a hub that is about to fail.
struct Case {
    larder: Larder,
    whole: Image,
    fresh: Image,
    half: Image,
}

fn tag(repo: &str) -> String {
    format!("/v2/library/{repo}/manifests/latest")
}

fn blob(repo: &str, digest: &Digest) -> String {
    format!("/v2/library/{repo}/blobs/{digest}")
}

/// Upstream's images; of `half` a layer is not there yet.
fn stock(hub: &Hub) {
    for (n, repo) in ["whole", "fresh", "half", "never", "never-either"].iter().enumerate() {
        hub.push(&format!("library/{repo}"), "latest", &Image::small(n as u64));
    }
}

impl Case {
    async fn new(hub: &Hub) -> Case {
        let larder = Larder::configured(hub, "revalidate_timeout = \"300ms\"", LIMITS).await;
        let case = Case { larder, whole: Image::small(0), fresh: Image::small(1), half: Image::small(2) };
        let lacking = case.half.layer(1).0;
        hub.remove_blob("library/half", lacking);
        for (repo, image) in [("whole", &case.whole), ("half", &case.half)] {
            case.pull(repo, image).await;
        }
        case.larder.until_idle().await;
        hub.add_blob("library/half", case.half.layer(1).1);
        case.larder.clock.advance(EXPIRED);
        case.pull("fresh", &case.fresh).await;
        case.larder.until_idle().await;
        case
    }

    async fn pull(&self, repo: &str, image: &Image) {
        assert_eq!(self.larder.get(&tag(repo)).await.body, image.manifest);
        self.larder.get(&format!("/v2/library/{repo}/referrers/{}", image.digest())).await;
        self.larder.get(&format!("/v2/library/{repo}/tags/list")).await;
        for digest in image.blob_digests() {
            self.larder.get(&blob(repo, &digest)).await;
        }
    }

    async fn ask(&self, path: &str) -> Answer {
        timeout(HANG, self.larder.get(path)).await.unwrap_or_else(|_| panic!("{path} hangs"))
    }

    /// What is here is served, whatever happens, and upstream is not asked.
    async fn served_as_ever(&self, hub: &Hub) -> Vec<String> {
        let digest = self.whole.digest();
        let by_digest = format!("/v2/library/whole/manifests/{digest}");
        let mut wrong = Vec::new();
        hub.clear();
        for (path, body) in [
            (tag("fresh"), &self.fresh.manifest),
            (by_digest, &self.whole.manifest),
            (blob("whole", &self.whole.layer(0).0), &self.whole.layer(0).1),
            (blob("half", &self.half.layer(0).0), &self.half.layer(0).1),
        ] {
            let answer = self.ask(&path).await;
            if told(&answer) != "200 hit" || answer.body != *body {
                wrong.push(format!("{path}: {} and not 200 hit", told(&answer)));
            }
        }
        for path in
            ["/v2/".to_owned(), format!("/v2/library/whole/referrers/{digest}"), "/v2/library/whole/tags/list".into()]
        {
            let answer = self.ask(&path).await;
            if answer.status != 200 {
                wrong.push(format!("{path}: {} and not 200", told(&answer)));
            }
        }
        let ranged = Call::get(&blob("whole", &self.whole.layer(0).0)).header("range", "bytes=10-19");
        let part = ranged.send(self.larder.mirror()).await;
        if part.status != 206 || part.body != self.whole.layer(0).1[10..20] {
            wrong.push(format!("a range of a cached layer: {}", told(&part)));
        }
        let theirs = self.whole.blob_digests();
        let asked = move |seen: &Seen| seen.is(Target::Blob) && theirs.iter().any(|digest| seen.is_for(digest));
        if hub.count(asked) > 0 {
            wrong.push("upstream was asked for a blob that is here".into());
        }
        wrong
    }

    /// Whether a part of upstream is known to be out of order.
    async fn is_known(&self) -> bool {
        Call::get("/api/status").send(self.larder.admin()).await.text().contains("\"down\"")
    }

    /// Asks for what is not here until the failure is known.
    async fn until_known(&self, shape: Shape) {
        let wanted = if shape.is_only_the_cdn() { blob("never", &Image::small(3).layer(0).0) } else { tag("never") };
        let wait = async {
            self.larder.get(&wanted).await;
            while !self.is_known().await {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{shape:?} is never noticed"));
    }
}

/// Status and outcome, as the table has them.
fn told(answer: &Answer) -> String {
    match (answer.status, answer.header("x-larder-cache")) {
        (200, Some(outcome)) => format!("200 {outcome}"),
        (status, _) => status.to_string(),
    }
}

/// What is wrong with an answer, beside what the table says.
fn manners(answer: &Answer) -> Option<&'static str> {
    let is_stale = answer.header("x-larder-cache") == Some("stale");
    if is_stale && !answer.header("warning").is_some_and(|text| text.starts_with("299 - \"")) {
        return Some("a stale answer without Warning");
    }
    if is_stale && answer.header("age").is_none() {
        return Some("a stale answer without Age");
    }
    if answer.status == 503 {
        let error = &answer.json()["errors"][0];
        let message = error["message"].as_str().unwrap_or_default();
        if error["code"] != "UNAVAILABLE" || !message.contains("docker.io") || !message.contains("cached") {
            return Some("a 503 that does not say who and that it is not cached");
        }
        if answer.header("retry-after").is_none() {
            return Some("a 503 without Retry-After");
        }
    }
    let challenges = answer.header("www-authenticate").is_some();
    (challenges || answer.status == 429).then_some("what only upstream may say")
}

async fn try_row(row: &'static Row) -> Vec<String> {
    let hub = if row.shape.needs_tls() { Hub::tls().await } else { Hub::plain().await };
    stock(&hub);
    let opens = row.incomplete[1] == "503";
    // One mirror for each first meeting.
    let (first, second, third) = (Case::new(&hub).await, Case::new(&hub).await, Case::new(&hub).await);
    hub.expire_tokens();
    let _rules = row.shape.inflict(&hub).await;
    let mut wrong = Vec::new();
    let mut check = |cell: &str, expected: &str, answer: &Answer| {
        let got = told(answer);
        if got != expected {
            wrong.push(format!(
                "{cell}: {got} and not {expected}: {}",
                answer.text().chars().take(200).collect::<String>()
            ));
        }
        if let Some(fault) = manners(answer) {
            wrong.push(format!("{cell}: {fault}: {:?}", answer.headers));
        }
    };
    let paths = [tag("whole"), tag("never"), tag("half")];
    let (stale, absent, half) = tokio::join!(first.ask(&paths[0]), second.ask(&paths[1]), third.ask(&paths[2]));
    check("stale, first", row.stale[0], &stale);
    check("absent, first", row.absent[0], &absent);
    check("incomplete, first", row.incomplete[0], &half);
    if opens {
        first.until_known(row.shape).await;
    }
    check("stale, known", row.stale[1], &first.ask(&tag("whole")).await);
    check("absent, known", row.absent[1], &first.ask(&tag("never-either")).await);
    if opens {
        third.until_known(row.shape).await;
    }
    check("incomplete, known", row.incomplete[1], &third.ask(&tag("half")).await);
    let layer = blob("never", &Image::small(3).layer(1).0);
    check("layer, known", row.layer, &first.ask(&layer).await);
    wrong.extend(first.served_as_ever(&hub).await);
    let stale_answers = first.larder.metric("larder_requests_total", "outcome=\"stale\"").await;
    if (row.stale[0] == "200 stale") != (stale_answers > 0.0) {
        wrong.push(format!("the metric counts {stale_answers} stale answers"));
    }

    Shape::heal(&hub).await;
    wrong.extend(recovers(&first, opens).await);
    wrong.into_iter().map(|what| format!("{:?}: {what}", row.shape)).collect()
}

/// Thirty seconds after upstream is well again, that has been noticed.
async fn recovers(case: &Case, opens: bool) -> Vec<String> {
    if !opens {
        return Vec::new();
    }
    let noticed = async {
        // Every probe finds its time come; no client asks.
        while case.is_known().await {
            case.larder.clock.advance(Duration::from_secs(1));
        }
    };
    if timeout(PATIENCE, noticed).await.is_err() {
        return vec!["recovery is not noticed".into()];
    }
    let answer = case.ask(&tag("never-either")).await;
    if answer.status != 200 { vec![format!("after recovery: {}", told(&answer))] } else { Vec::new() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_cell_of_the_contract_holds() {
    let mut rows = JoinSet::new();
    for row in TABLE {
        rows.spawn(try_row(row));
    }
    let mut wrong: Vec<String> = rows.join_all().await.concat();
    wrong.sort();
    assert!(wrong.is_empty(), "{} cells are wrong:\n{}", wrong.len(), wrong.join("\n"));
}
