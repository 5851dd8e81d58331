//! Who may what, whether or not it exists (reliability.md, S3 and S4): every endpoint and method, every kind of asker, every
//! kind of right, on what is there and on what is not. The policy is written down a second time here, as a table.
//!
//! What one may not see cannot be told from what does not exist: status, headers and body are the same.

use std::time::Duration;

use larder::oci::Digest;
use serde_json::json;

use super::support::client::{Answer, Call};
use super::support::hub::Hub;
use super::support::image::Image;
use super::support::larder::Larder;
use super::support::pushing::{Remote, refusal};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Pull,
    Push,
    Delete,
}

use Action::{Delete, Pull, Push};

/// A rule of the configuration: which names, and who may pull, push and delete.
struct Family {
    name: &'static str,
    rights: [(Action, &'static [&'static str]); 3],
}

/// `open` is for everyone, `secret` is anna's, of `drawer` bert may see nothing and put things in, `shelf` is read only.
const FAMILIES: [Family; 4] = [
    Family { name: "open", rights: [(Pull, &["*"]), (Push, &["*"]), (Delete, &["*"])] },
    Family { name: "secret", rights: [(Pull, &["anna"]), (Push, &["anna"]), (Delete, &["anna"])] },
    Family { name: "drawer", rights: [(Pull, &["anna"]), (Push, &["anna", "bert"]), (Delete, &[])] },
    Family { name: "shelf", rights: [(Pull, &["*"]), (Push, &["anna"]), (Delete, &["anna"])] },
];

/// Names are of one length, so that nothing follows from that.
const THERE: &str = "there0";
const ABSENT: &str = "absent";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    Nobody,
    Account(&'static str),
    /// By a token that lists everything that the account may do.
    Token(&'static str),
}

const ASKERS: [Asker; 6] = [
    Asker::Nobody,
    Asker::Account("anna"),
    Asker::Account("bert"),
    Asker::Account("carl"),
    Asker::Token("bert"),
    Asker::Token("carl"),
];

const ANONYMOUS: [(&str, &[Action]); 3] = [("none", &[]), ("pull", &[Pull]), ("push", &[Pull, Push, Delete])];

impl Asker {
    fn account(self) -> Option<&'static str> {
        match self {
            Asker::Nobody => None,
            Asker::Account(name) | Asker::Token(name) => Some(name),
        }
    }

    /// What the configuration says, once more.
    fn may(self, family: &Family, action: Action, anonymous: &[Action]) -> bool {
        let (_, grantees) = family.rights.iter().find(|(one, _)| *one == action).unwrap();
        match self.account() {
            Some(account) => grantees.contains(&"*") || grantees.contains(&account),
            None => grantees.contains(&"*") && anonymous.contains(&action),
        }
    }
}

struct House {
    larder: Larder,
    _hub: Hub,
    home: tempfile::TempDir,
}

/// What is in `<family>/there0`.
struct Content {
    image: Image,
    digest: Digest,
    blob: Digest,
    /// The name of an upload that anna has begun.
    upload: String,
}

impl House {
    async fn open(anonymous: &str) -> House {
        let home = tempfile::tempdir().unwrap();
        let accounts = ["anna", "bert", "carl"];
        let line = |name: &&str| format!("{name}:{}\n", bcrypt::hash(format!("{name}-secret"), 4).unwrap());
        let file = home.path().join("htpasswd");
        std::fs::write(&file, accounts.iter().map(line).collect::<String>()).unwrap();
        let mut rules = format!("htpasswd = {file:?}\nanonymous = \"{anonymous}\"\n");
        for Family { name, rights: [(_, pull), (_, push), (_, delete)] } in &FAMILIES {
            rules += &format!(
                "[[registry.repository]]\npattern = \"{name}/**\"\npull = {pull:?}\npush = {push:?}\ndelete = {delete:?}\n"
            );
        }
        let hub = Hub::plain().await;
        House { larder: Larder::hosting(&hub, &rules).await, _hub: hub, home }
    }

    fn repo(&self, family: &str, name: &str) -> Remote {
        Remote::new(self.larder.registry(), &format!("{family}/{name}"))
    }

    async fn as_asker(&self, asker: Asker, repo: &Remote) -> Remote {
        let with_password = |name: &str| repo.logged_in(name, &format!("{name}-secret"));
        match asker {
            Asker::Nobody => repo.clone(),
            Asker::Account(name) => with_password(name),
            Asker::Token(name) => {
                let scope =
                    |other: &str| format!("&scope=repository:{}:pull,push,delete", repo.name.replace(THERE, other));
                let path = format!("/token?service=larder{}{}", scope(THERE), scope(ABSENT));
                let granted = with_password(name).send(Call::get(&path)).await;
                let token = granted.json()["token"].as_str().unwrap().to_owned();
                Remote { authorization: Some(format!("Bearer {token}")), ..repo.clone() }
            }
        }
    }

    async fn fill(&self, family: &str, seed: u64) -> Content {
        let repo = self.repo(family, THERE).logged_in("anna", "anna-secret");
        let image = Image::small(seed);
        let digest = repo.push("v1", &image).await;
        let referrer = Image::referrer(seed + 100, "x/y", &image);
        repo.push("about", &referrer).await;
        let upload = repo.begin().await.rsplit('/').next().unwrap().to_owned();
        Content { blob: image.layer(0).0, digest, image, upload }
    }
}

/// Everything that can be asked of a repository, and the right to it. What would change something does not fit, and so is
/// refused by who looks at it: the right is looked at before.
fn questions(content: &Content) -> Vec<(Action, Call)> {
    let Content { digest, blob, upload, .. } = content;
    let absent = Digest::sha256(b"absent");
    let unknown: String = upload.chars().rev().collect();
    let mut all = Vec::new();
    let mut ask = |action, call: Call| all.push((action, call));
    for method in ["GET", "HEAD"] {
        for below in [
            "manifests/v1".to_owned(),
            "manifests/other".to_owned(),
            format!("manifests/{digest}"),
            format!("manifests/{absent}"),
            format!("blobs/{blob}"),
            format!("blobs/{absent}"),
            "tags/list".to_owned(),
            "tags/list?n=1&last=a".to_owned(),
            format!("referrers/{digest}"),
            format!("referrers/{digest}?artifactType=x%2Fy"),
        ] {
            ask(Pull, Call::new(method, &below));
        }
        ask(Push, Call::new(method, &format!("blobs/uploads/{upload}")));
    }
    ask(Pull, Call::get(&format!("blobs/{blob}")).header("Range", "bytes=0-10"));
    ask(Pull, Call::get(&format!("blobs/{blob}")).header("If-None-Match", &format!("\"{blob}\"")));
    ask(Push, Call::new("PUT", "manifests/v1").body(b"{}"));
    ask(Push, Call::new("PUT", &format!("manifests/{absent}?tag=v1")).body(b"{}"));
    ask(Push, Call::new("POST", &format!("blobs/uploads/?digest={blob}")).body(b"wrong"));
    for method in ["PATCH", "PUT", "DELETE"] {
        ask(Push, Call::new(method, &format!("blobs/uploads/{unknown}")).body(b"x"));
    }
    ask(Push, Call::new("PUT", &format!("blobs/uploads/{upload}")).body(b"x"));
    ask(Delete, Call::new("DELETE", "manifests/other"));
    ask(Delete, Call::new("DELETE", &format!("manifests/{absent}")));
    ask(Delete, Call::new("DELETE", &format!("blobs/{absent}")));
    all
}

/// What someone who may not is asked to be refused for besides, because it would be done.
fn deeds(content: &Content) -> Vec<(Action, Call)> {
    let Content { digest, blob, upload, image } = content;
    vec![
        (
            Push,
            Call::new("PUT", "manifests/v1").header("Content-Type", image.media_type.as_str()).body(&image.manifest),
        ),
        (Push, Call::new("POST", "blobs/uploads/")),
        (Push, Call::new("POST", &format!("blobs/uploads/?mount={blob}"))),
        (Push, Call::new("POST", &format!("blobs/uploads/?mount={blob}&from=open/{THERE}"))),
        (Push, Call::new("PATCH", &format!("blobs/uploads/{upload}")).body(b"foreign")),
        (Push, Call::new("PUT", &format!("blobs/uploads/{upload}?digest={}", Digest::sha256(b""))).body(b"")),
        (Push, Call::new("DELETE", &format!("blobs/uploads/{upload}"))),
        (Delete, Call::new("DELETE", "manifests/v1")),
        (Delete, Call::new("DELETE", &format!("manifests/{digest}"))),
        (Delete, Call::new("DELETE", &format!("blobs/{blob}"))),
    ]
}

/// An answer as someone sees it who does not know which of the two names was asked for.
fn seen(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let neutral = |text: &str| text.replace(THERE, "NAME").replace(ABSENT, "NAME");
    let headers = answer.headers.iter().filter(|(name, _)| !["date", "x-request-id"].contains(&name.as_str()));
    (answer.status, headers.map(|(name, value)| (name.clone(), neutral(value))).collect(), neutral(&answer.text()))
}

async fn send(to: &Remote, call: &Call) -> Answer {
    to.send(call.below(&to.path(""))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_right_is_the_policys_and_what_one_may_not_see_looks_like_nothing() {
    let mut asked = 0;
    for (anonymous, anyone_may) in ANONYMOUS {
        let house = House::open(anonymous).await;
        let mut contents = Vec::new();
        for (seed, family) in (1..).zip(&FAMILIES) {
            contents.push(house.fill(family.name, seed).await);
        }
        for asker in ASKERS {
            for (family, content) in FAMILIES.iter().zip(&contents) {
                let there = house.as_asker(asker, &house.repo(family.name, THERE)).await;
                let absent = Remote { name: format!("{}/{ABSENT}", family.name), ..there.clone() };
                for (action, call) in questions(content).into_iter().chain(deeds(content)) {
                    let may = asker.may(family, action, anyone_may);
                    let changes = deeds(content).iter().any(|(_, deed)| deed == &call);
                    if may && changes {
                        continue;
                    }
                    asked += 1;
                    let case = format!("{anonymous}: {asker:?} {} {call:?}", family.name);
                    let (one, other) = (send(&there, &call).await, send(&absent, &call).await);
                    if may {
                        assert!(![401, 403].contains(&one.status), "may, and is refused: {case}: {}", one.text());
                        assert!(!one.text().contains("NAME_UNKNOWN"), "may, and is told lies: {case}: {}", one.text());
                    } else if asker.may(family, Pull, anyone_may) {
                        let expected = if asker == Asker::Nobody { 401 } else { 403 };
                        assert_eq!(one.status, expected, "{case}: {}", one.text());
                    } else {
                        assert_eq!(seen(&one), seen(&other), "{case}");
                        let refused = [401, 404].contains(&one.status);
                        let is_empty_list = one.status == 200 && call.names("referrers/");
                        assert!(refused || is_empty_list, "{case}: {}", one.status);
                        assert!(
                            is_empty_list || one.headers.iter().all(|(name, _)| !name.contains("digest")),
                            "{case}"
                        );
                    }
                }
            }
        }
        // Nothing of all that has changed anything.
        for (family, content) in FAMILIES.iter().zip(&contents) {
            let repo = house.repo(family.name, THERE).logged_in("anna", "anna-secret");
            repo.assert_pulls("v1", &content.image).await;
            let upload = repo.get(&format!("blobs/uploads/{}", content.upload)).await;
            assert_eq!((upload.status, upload.header("range")), (204, Some("0-0")));
            assert_eq!(repo.get("tags/list").await.json()["tags"], json!(["about", "v1"]));
        }
        let absent = house.repo("secret", ABSENT).logged_in("anna", "anna-secret");
        assert_eq!(refusal(&absent.get("tags/list").await), (404, "NAME_UNKNOWN".into()));
    }
    assert!(asked > 2_000, "the matrix has shrunk: {asked}");
}

/// Knowing a digest is no right to what it names, whichever way one goes about it (S4).
#[tokio::test]
async fn what_is_secret_reaches_nobody_else_by_its_digest() {
    let house = House::open("push").await;
    let content = house.fill("secret", 1).await;
    let bert = house.repo("open", "berts").logged_in("bert", "bert-secret");
    bert.push("own", &Image::small(50)).await;
    for query in [format!("mount={}", content.blob), format!("mount={}&from=secret/{THERE}", content.blob)] {
        let absent = query.replace(&content.blob.to_string(), &Digest::sha256(b"absent").to_string());
        let [there, absent] = [
            bert.ask("POST", &format!("blobs/uploads/?{query}")).await,
            bert.ask("POST", &format!("blobs/uploads/?{absent}")).await,
        ];
        assert_eq!((there.status, absent.status), (202, 202), "{query}");
        let names = |answer: &Answer| answer.headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!((names(&there), there.text()), (names(&absent), absent.text()));
    }
    for below in [format!("blobs/{}", content.blob), format!("manifests/{}", content.digest)] {
        for method in ["GET", "HEAD"] {
            let call = Call::new(method, &bert.path(&below)).header("Range", "bytes=0-10");
            assert_eq!(bert.send(call).await.status, 404, "{method} {below}");
        }
    }
    // To name it in a manifest of one's own is no way either.
    let put = bert.put("stolen", content.image.media_type.as_str(), &content.image.manifest).await;
    assert_eq!(refusal(&put), (404, "MANIFEST_BLOB_UNKNOWN".into()));
    assert!(
        bert.get(&format!("referrers/{}", content.digest)).await.json()["manifests"].as_array().unwrap().is_empty()
    );
    for path in ["/v2/_catalog", "/v2/_catalog?n=1", "/v2/_catalog?last=o"] {
        let listed = bert.send(Call::get(path)).await;
        assert!(!listed.text().contains("secret") && listed.header("link").is_none_or(|link| !link.contains("secret")));
    }
    // Nor is the mirror's address, which asks nobody who they are.
    for below in ["manifests/v1".to_owned(), format!("blobs/{}", content.blob), format!("manifests/{}", content.digest)]
    {
        for name in [THERE, ABSENT] {
            let answer = house.larder.get(&format!("/v2/secret/{name}/{below}")).await;
            assert_eq!(refusal(&answer), (404, "NAME_UNKNOWN".into()), "{name}/{below}");
        }
    }
}

/// What was allowed and is not any more: after a delete in one repository while another has the same, and after an account
/// has another password or is gone (S4; CVE-2026-35172).
#[tokio::test]
async fn what_was_taken_away_is_away_at_once() {
    let house = House::open("none").await;
    let content = house.fill("secret", 1).await;
    let [mine, other] = [THERE, "other"].map(|name| house.repo("secret", name).logged_in("anna", "anna-secret"));
    other.push("v1", &content.image).await;
    for below in [format!("blobs/{}", content.blob), format!("manifests/{}", content.digest)] {
        assert_eq!(mine.get(&below).await.status, 200);
        assert_eq!(mine.ask("DELETE", &below).await.status, 202);
        assert_eq!(other.get(&below).await.status, 200, "the other has it still");
        for method in ["GET", "HEAD"] {
            assert_eq!(mine.ask(method, &below).await.status, 404, "{method} {below}");
        }
    }
    assert_eq!(mine.get("manifests/v1").await.status, 404);

    let bearer = house.as_asker(Asker::Token("anna"), &house.repo("secret", THERE)).await;
    assert_eq!(bearer.get("tags/list").await.status, 200);
    let file = house.home.path().join("htpasswd");
    let line = |name: &str, password: &str| format!("{name}:{}\n", bcrypt::hash(password, 4).unwrap());
    std::fs::write(&file, line("anna", "another-secret") + &line("bert", "bert-secret")).unwrap();
    house.larder.clock.advance(Duration::from_secs(5));
    let refused = bearer.get("tags/list").await;
    assert_eq!((refused.status, refused.header("www-authenticate").is_some()), (401, true), "her token has ended, too");
    assert_eq!(other.get("tags/list").await.status, 401, "her old password");
    let carl = house.repo("shelf", THERE).logged_in("carl", "carl-secret");
    assert_eq!(carl.get("tags/list").await.status, 401, "who has no account any more");
}
