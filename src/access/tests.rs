//! Access control from outside: real files, real bcrypt at its lowest cost, the clock moved by hand.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use tempfile::TempDir;

use super::*;

const COST: u32 = 4;

struct House {
    access: Access,
    clock: Clock,
    home: TempDir,
}

fn globs(patterns: &[&str]) -> GlobSet {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(GlobBuilder::new(pattern).literal_separator(true).build().unwrap());
    }
    set.build().unwrap()
}

fn rule(pattern: &str, pull: &[&str], push: &[&str], delete: &[&str]) -> Rule {
    let grantees = |names: &[&str]| names.iter().map(|name| Grantee::parse(name)).collect();
    Rule {
        pattern: pattern.into(),
        names: globs(&[pattern]),
        immutable_tags: globs(&["v*"]),
        pull: grantees(pull),
        push: grantees(push),
        delete: grantees(delete),
        mirror: false,
    }
}

fn hash(password: &str, cost: u32) -> String {
    bcrypt::hash(password, cost).unwrap()
}

/// As `larder user` does it.
fn write(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}

impl House {
    async fn new(anonymous: Anonymous) -> House {
        House::with(anonymous, &format!("ann:{}\nbob:{}\n", hash("secret", COST), hash("hunter2", COST))).await
    }

    async fn with(anonymous: Anonymous, htpasswd: &str) -> House {
        let home = tempfile::tempdir().unwrap();
        write(&home.path().join("htpasswd"), htpasswd);
        let clock = Clock::system();
        let access = House::open(anonymous, home.path(), &clock).await;
        House { access, clock, home }
    }

    async fn open(anonymous: Anonymous, home: &Path, clock: &Clock) -> Access {
        let settings = Settings {
            rules: vec![
                rule("team/**", &["*"], &["ann"], &["ann"]),
                rule("secret/**", &["ann"], &["ann"], &[]),
                rule("open/**", &["*"], &["*"], &["*"]),
            ],
            anonymous,
            htpasswd: Some(home.join("htpasswd")),
            token_key: TokenKey::open(&home.join("token.key")).unwrap(),
            public: None,
        };
        Access::open(settings, clock.clone()).await.unwrap()
    }

    async fn password(&self, user: &str, password: &str) -> Result<Identity, AccessError> {
        self.password_from(user, password, "192.0.2.1").await
    }

    async fn password_from(&self, user: &str, password: &str, client: &str) -> Result<Identity, AccessError> {
        let header = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        self.access.identify(Some(header.as_bytes()), client.parse().unwrap()).await
    }

    async fn bearer(&self, token: &Secret) -> Result<Identity, AccessError> {
        let header = format!("Bearer {}", token.expose());
        self.access.identify(Some(header.as_bytes()), client()).await
    }

    /// Asks as docker does; no user: without a password.
    async fn token(&self, user: &str, password: &str, query: &str) -> Result<TokenGrant, AccessError> {
        let header = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        let request = TokenRequest::from_query(Some(query), (!user.is_empty()).then_some(header.as_bytes()))?;
        self.access.token(request, client()).await
    }

    async fn form(&self, form: &str) -> Result<TokenGrant, AccessError> {
        self.access.token(TokenRequest::from_form(form.as_bytes())?, client()).await
    }

    fn accounts(&self, text: &str) {
        write(&self.home.path().join("htpasswd"), text);
        // Looked at every second at most.
        self.clock.advance(Duration::from_secs(1));
    }

    fn work(&self) -> u64 {
        self.access.inner.passwords.work()
    }

    fn decide(&self, who: &Identity, name: &str, action: Action) -> Decision {
        self.access.decide(who, &name.parse().unwrap(), action)
    }
}

fn client() -> IpAddr {
    "192.0.2.1".parse().unwrap()
}

fn busy<T>(result: &Result<T, AccessError>) -> bool {
    matches!(result, Err(AccessError::TooMany { .. }))
}

const ONE: u64 = 1 << COST;

#[tokio::test]
async fn a_password_is_believed_for_a_while_and_not_asked_about_again() {
    let house = House::new(Anonymous::None).await;
    for _ in 0..20 {
        assert_eq!(house.password("ann", "secret").await.unwrap().name(), Some("ann"));
    }
    assert_eq!(house.work(), ONE);
    house.clock.advance(passwords::BELIEVED - Duration::from_secs(30));
    house.password("ann", "secret").await.unwrap();
    assert_eq!(house.work(), ONE);
    house.clock.advance(Duration::from_secs(31));
    house.password("ann", "secret").await.unwrap();
    assert_eq!(house.work(), 2 * ONE);
    assert_eq!(house.password("ann", "hunter2").await, Err(AccessError::WrongPassword));
}

#[tokio::test]
async fn a_wrong_password_is_not_asked_about_again_for_a_moment() {
    let house = House::new(Anonymous::None).await;
    for _ in 0..50 {
        assert_eq!(house.password("ann", "wrong").await, Err(AccessError::WrongPassword));
    }
    assert_eq!(house.work(), ONE);
    house.clock.advance(passwords::DISBELIEVED + Duration::from_secs(1));
    assert_eq!(house.password("ann", "wrong").await, Err(AccessError::WrongPassword));
    assert_eq!(house.work(), 2 * ONE);
}

#[tokio::test]
async fn whether_a_name_exists_cannot_be_told_from_the_work() {
    let (cheap, dear) = (hash("secret", 4), hash("hunter2", 7));
    let house = House::with(Anonymous::None, &format!("cheap:{cheap}\ndear:{dear}\n")).await;
    let mut before = 0;
    for user in ["cheap", "dear", "nobody", "*", "CHEAP"] {
        let (answer, work) = (house.password(user, "wrong").await, house.work() - before);
        assert_eq!((answer, work), (Err(AccessError::WrongPassword), 1 << 7), "{user}");
        before = house.work();
    }
    house.password("cheap", "secret").await.unwrap();
    assert_eq!(house.work() - before, 1 << 4, "who is right waits no longer than need be");
}

#[tokio::test]
async fn what_bcrypt_would_cut_off_is_never_the_password() {
    let long = "x".repeat(72);
    let house = House::with(Anonymous::None, &format!("ann:{}\n", hash(&long, COST))).await;
    assert!(house.password("ann", &long).await.is_ok());
    let work = house.work();
    for wrong in [format!("{long}y"), String::new(), format!("{}\0", &long[..71])] {
        assert_eq!(house.password("ann", &wrong).await, Err(AccessError::WrongPassword));
    }
    assert_eq!(house.work(), work, "and for that nothing need be looked up");
}

#[tokio::test]
async fn one_question_is_asked_once_however_many_ask_it() {
    let house = House::new(Anonymous::None).await;
    let answers = join_all((0..500).map(|_| house.password("ann", "secret"))).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|who| who.name() == Some("ann"))));
    assert_eq!(house.work(), ONE);
}

#[tokio::test]
async fn the_queue_is_bounded_for_each_client_and_in_all() {
    let house = House::new(Anonymous::None).await;
    // One thread: all of them ask before any of them is answered.
    let from_one = (0..40).map(|at| (format!("guess{at}"), "198.51.100.1".to_owned()));
    let from_many = (0..40).map(|at| (format!("other{at}"), format!("198.51.100.{}", at + 2)));
    let asked: Vec<_> = from_one.chain(from_many).collect();
    let answers = join_all(asked.iter().map(|(guess, client)| house.password_from("ann", guess, client))).await;
    let turned_away = |answers: &[Result<Identity, AccessError>]| answers.iter().filter(|answer| busy(answer)).count();
    assert_eq!(turned_away(&answers[..40]), 40 - passwords::PER_CLIENT);
    assert_eq!(turned_away(&answers), 80 - (passwords::QUEUE + 1));
    assert_eq!(house.work(), (passwords::QUEUE as u64 + 1) * ONE);
    assert!(house.password("ann", "secret").await.is_ok(), "afterwards there is room again");
}

/// S8: 2,000 bad logins, from one client and from many, and those whose password is known are not touched.
#[tokio::test]
async fn a_flood_of_wrong_passwords_does_not_reach_who_is_known() {
    let house = House::new(Anonymous::None).await;
    house.password_from("ann", "secret", "203.0.113.9").await.unwrap();
    let token = house.token("bob", "hunter2", "scope=repository:team/app:pull").await.unwrap().token;
    let (before, mut good) = (house.work(), 0);
    for round in 0..100 {
        let flood = (0..20).map(|at| (format!("guess {round} {at}"), format!("198.51.100.{}", at % 5)));
        let flood: Vec<_> = flood.collect();
        let (_, known, bearer) = tokio::join!(
            join_all(flood.iter().map(|(guess, client)| house.password_from("ann", guess, client))),
            // Even from an address that the flood comes from.
            house.password_from("ann", "secret", "198.51.100.1"),
            house.bearer(&token),
        );
        good += usize::from(known.is_ok()) + usize::from(bearer.is_ok());
    }
    assert_eq!(good, 200);
    let checked = (house.work() - before) / ONE;
    assert_eq!(checked, 5 * u64::from(passwords::FAILURES), "five clients, so many each");
}

#[tokio::test]
async fn who_was_wrong_too_often_waits_and_others_do_not() {
    let house = House::new(Anonymous::None).await;
    for guess in 0..passwords::FAILURES {
        let wrong = house.password_from("ann", &guess.to_string(), "2001:db8::1").await;
        assert_eq!(wrong, Err(AccessError::WrongPassword));
    }
    // The same network.
    let Err(AccessError::TooMany { retry_after }) = house.password_from("ann", "secret", "2001:db8::2").await else {
        panic!("not refused")
    };
    assert!(retry_after <= passwords::WINDOW + Duration::from_secs(1) && !retry_after.is_zero(), "{retry_after:?}");
    assert!(house.password_from("bob", "hunter2", "2001:db8:1::1").await.is_ok());
    house.clock.advance(retry_after);
    assert!(house.password_from("ann", "secret", "2001:db8::2").await.is_ok());
}

#[tokio::test]
async fn a_changed_file_counts_at_once_and_a_bad_one_not_at_all() {
    let house = House::new(Anonymous::None).await;
    let token = house.token("ann", "secret", "offline_token=true&scope=repository:team/app:push").await.unwrap();
    let refresh = token.refresh_token.unwrap();
    house.password("ann", "secret").await.unwrap();
    assert!(house.bearer(&token.token).await.is_ok());

    for bad in ["ann:plain\n", "nonsense", "ann:$2x$05$1cSSbWDPqgHlUgS8HUWC7.5dZcEGGWGBEFYyfDTPAMhZpxrxo6mPK"] {
        house.accounts(bad);
        assert!(house.password("ann", "secret").await.is_ok(), "{bad}");
    }
    std::fs::remove_file(house.home.path().join("htpasswd")).unwrap();
    house.clock.advance(Duration::from_secs(2));
    assert!(house.password("ann", "secret").await.is_ok(), "a missing file is a bad one");

    house.accounts(&format!("ann:{}\nbob:{}\n", hash("changed", COST), hash("hunter2", COST)));
    assert_eq!(house.password("ann", "secret").await, Err(AccessError::WrongPassword), "although it was believed");
    assert!(house.password("ann", "changed").await.is_ok());
    assert_eq!(house.bearer(&token.token).await, Err(AccessError::InvalidToken));
    let form = format!("grant_type=refresh_token&refresh_token={}", refresh.expose());
    assert_eq!(house.form(&form).await, Err(AccessError::InvalidToken));

    let bobs = house.token("bob", "hunter2", "").await.unwrap().token;
    house.accounts(&format!("ann:{}\n", hash("changed", COST)));
    assert_eq!(house.password("bob", "hunter2").await, Err(AccessError::WrongPassword), "bob is gone");
    assert_eq!(house.bearer(&bobs).await, Err(AccessError::InvalidToken));
}

#[tokio::test]
async fn a_file_that_is_no_good_is_refused_at_the_start() {
    let home = tempfile::tempdir().unwrap();
    let open = async || {
        let settings = Settings {
            rules: Vec::new(),
            anonymous: Anonymous::None,
            htpasswd: Some(home.path().join("htpasswd")),
            token_key: TokenKey::from_bytes(&[1; 32]),
            public: None,
        };
        Access::open(settings, Clock::system()).await.err().unwrap().to_string()
    };
    assert!(open().await.contains("No such file"));
    write(&home.path().join("htpasswd"), "ann:$apr1$salt$QxZCyFYq0KkoXcBbTo6xD0\n");
    let error = open().await;
    assert!(error.contains("\"ann\"") && error.contains("larder user add ann") && !error.contains("apr1"), "{error}");
}

#[tokio::test]
async fn a_token_lists_what_is_allowed_of_what_was_asked_for() {
    let house = House::new(Anonymous::Pull).await;
    let query = "service=larder&scope=repository:team/app:pull,push,delete&scope=repository:secret/x:pull,push\
                 &scope=repository:elsewhere:pull&scope=registry:catalog:*&scope=nonsense";
    for (user, password, granted) in [
        ("", "", "repository:team/app:pull registry:catalog:*"),
        ("bob", "hunter2", "repository:team/app:pull registry:catalog:*"),
        ("ann", "secret", "repository:team/app:pull,push,delete repository:secret/x:pull,push registry:catalog:*"),
    ] {
        let grant = house.token(user, password, query).await.unwrap();
        assert_eq!(grant.scope, granted, "{user}");
        assert_eq!(grant.refresh_token, None, "nobody asked for one");
        let who = house.bearer(&grant.token).await.unwrap();
        assert_eq!(who.name(), (!user.is_empty()).then_some(user));
        for name in ["team/app", "team/other", "secret/x", "secret/y", "elsewhere", "open/x"] {
            for action in [Action::Pull, Action::Push, Action::Delete] {
                let listed = granted.split(' ').any(|scope| {
                    scope
                        .strip_prefix(&format!("repository:{name}:"))
                        .is_some_and(|actions| actions.contains(action.as_str()))
                });
                assert_eq!(house.access.may(&who, &name.parse().unwrap(), action), listed, "{user} {name} {action:?}");
            }
        }
        let json: serde_json::Value = serde_json::from_str(&grant.to_json()).unwrap();
        assert_eq!((json["token"].as_str(), &json["token"]), (Some(grant.token.expose()), &json["access_token"]));
        assert!(json["expires_in"].as_u64().unwrap() >= 60 && json["issued_at"].as_str().unwrap().ends_with('Z'));
        assert!(json.get("refresh_token").is_none());
    }
    let other = house.token("ann", "secret", "service=registry.docker.io").await;
    assert!(matches!(other, Err(AccessError::BadRequest(_))), "{other:?}");
}

#[tokio::test]
async fn a_login_verifies_the_password_and_a_refresh_token_stands_for_it() {
    let house = House::new(Anonymous::Pull).await;
    let login = "account=ann&client_id=docker&offline_token=true&service=larder";
    assert_eq!(house.token("ann", "wrong", login).await, Err(AccessError::WrongPassword));
    let grant = house.token("ann", "secret", login).await.unwrap();
    assert_eq!(house.access.decide_base(&house.bearer(&grant.token).await.unwrap()), Decision::Allowed);
    let refresh = grant.refresh_token.unwrap();
    assert_eq!(house.bearer(&refresh).await, Err(AccessError::InvalidToken), "it opens nothing by itself");
    let form = format!(
        "grant_type=refresh_token&service=larder&client_id=docker&refresh_token={}&scope=repository:team/app:push",
        refresh.expose()
    );
    house.clock.advance(Duration::from_secs(24 * 3600));
    assert_eq!(house.form(&form).await.unwrap().scope, "repository:team/app:push");
    house.clock.advance(token::REFRESH_LIFETIME);
    assert_eq!(house.form(&form).await, Err(AccessError::InvalidToken));

    let form = "grant_type=password&username=ann&password=secret&access_type=offline&scope=repository:team/app:push";
    assert!(house.form(form).await.unwrap().refresh_token.is_some());
    assert_eq!(house.form(&form.replace("secret", "wrong")).await, Err(AccessError::WrongPassword));
    let nobody = house.token("", "", "offline_token=true").await.unwrap();
    assert_eq!(nobody.refresh_token, None, "nobody's password stands behind it");
}

#[tokio::test]
async fn a_token_ends_and_outlives_a_restart() {
    let house = House::new(Anonymous::None).await;
    let token = house.token("ann", "secret", "scope=repository:team/app:push").await.unwrap().token;
    let again = House::open(Anonymous::None, house.home.path(), &house.clock).await;
    let header = format!("Bearer {}", token.expose());
    assert!(again.identify(Some(header.as_bytes()), client()).await.is_ok());
    house.clock.advance(token::LIFETIME + token::SKEW);
    assert_eq!(house.bearer(&token).await, Err(AccessError::InvalidToken));
}

#[tokio::test]
async fn the_rules_of_now_count_and_not_those_of_when_the_token_was_made() {
    let house = House::new(Anonymous::Push).await;
    let token = house.token("", "", "scope=repository:open/x:pull,push,delete").await.unwrap();
    assert_eq!(token.scope, "repository:open/x:pull,push,delete");
    let stricter = House::open(Anonymous::Pull, house.home.path(), &house.clock).await;
    let header = format!("Bearer {}", token.token.expose());
    let who = stricter.identify(Some(header.as_bytes()), client()).await.unwrap();
    let may = |action| stricter.may(&who, &"open/x".parse().unwrap(), action);
    assert!(may(Action::Pull) && !may(Action::Push) && !may(Action::Delete));
}

#[tokio::test]
async fn what_is_answered_tells_nothing_to_who_may_not_know() {
    use Decision::{Allowed, Challenge, Denied, Hidden, NotHosted};
    let house = House::new(Anonymous::Pull).await;
    let (nobody, bob) = (Identity::anonymous(), house.password("bob", "hunter2").await.unwrap());
    for (name, action, for_nobody, for_bob) in [
        ("team/app", Action::Pull, Allowed, Allowed),
        ("team/app", Action::Push, Challenge(None), Denied),
        ("secret/x", Action::Pull, Challenge(None), Hidden),
        ("secret/x", Action::Push, Challenge(None), Hidden),
        ("secret/x", Action::Delete, Challenge(None), Hidden),
        ("elsewhere", Action::Pull, Challenge(None), Hidden),
        ("elsewhere", Action::Push, Challenge(None), NotHosted),
        ("open/x", Action::Delete, Challenge(None), Allowed),
    ] {
        assert_eq!(house.decide(&nobody, name, action), for_nobody, "{name} {action:?}");
        assert_eq!(house.decide(&bob, name, action), for_bob, "{name} {action:?}");
    }
    let narrow = house.token("ann", "secret", "scope=repository:team/app:pull").await.unwrap().token;
    let narrow = house.bearer(&narrow).await.unwrap();
    assert_eq!(house.decide(&narrow, "team/app", Action::Pull), Allowed);
    assert_eq!(house.decide(&narrow, "team/app", Action::Push), Challenge(Some(Fault::InsufficientScope)));
    assert_eq!(house.decide(&narrow, "secret/x", Action::Pull), Challenge(Some(Fault::InsufficientScope)));
    assert_eq!(house.decide(&narrow, "secret/x", Action::Delete), Denied, "a wider token would not help");
}

#[tokio::test]
async fn the_catalogue_shows_what_the_asker_may_pull() {
    let house = House::new(Anonymous::Pull).await;
    let sees = |who: &Identity| {
        let names = ["team/app", "secret/x", "open/x", "elsewhere"];
        names.into_iter().filter(|name| house.access.shows(who, &name.parse().unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(sees(&Identity::anonymous()), ["team/app", "open/x"]);
    assert_eq!(sees(&house.password("ann", "secret").await.unwrap()), ["team/app", "secret/x", "open/x"]);
    let whole = house.token("ann", "secret", "scope=registry:catalog:*").await.unwrap().token;
    assert_eq!(sees(&house.bearer(&whole).await.unwrap()), ["team/app", "secret/x", "open/x"]);
    let one = house.token("ann", "secret", "scope=repository:secret/x:pull").await.unwrap().token;
    assert_eq!(sees(&house.bearer(&one).await.unwrap()), ["secret/x"]);
}

#[tokio::test]
async fn the_base_asks_for_a_login_exactly_where_there_are_accounts() {
    let house = House::new(Anonymous::Push).await;
    assert_eq!(house.access.decide_base(&Identity::anonymous()), Decision::Challenge(None));
    let podman = house.access.identify(Some(b"Basic Og=="), client()).await.unwrap();
    assert_eq!(house.access.decide_base(&podman), Decision::Challenge(None));
    assert_eq!(house.access.decide_base(&house.password("bob", "hunter2").await.unwrap()), Decision::Allowed);
    let nobodys = house.token("", "", "").await.unwrap().token;
    assert_eq!(house.access.decide_base(&house.bearer(&nobodys).await.unwrap()), Decision::Allowed);

    let settings = Settings {
        rules: vec![rule("open/**", &["*"], &["*"], &["ann"])],
        anonymous: Anonymous::Push,
        htpasswd: None,
        token_key: TokenKey::from_bytes(&[1; 32]),
        public: None,
    };
    let open = Access::open(settings, Clock::system()).await.unwrap();
    let who = open.identify(Some(b"Basic YW5uOnNlY3JldA=="), client()).await.unwrap();
    assert_eq!((open.decide_base(&who), who.name()), (Decision::Allowed, None));
    let decide = |action| open.decide(&who, &"open/x".parse().unwrap(), action);
    assert_eq!((decide(Action::Push), decide(Action::Delete)), (Decision::Allowed, Decision::Denied));
}

#[tokio::test]
async fn the_challenge_is_basic_where_everybody_needs_an_account() {
    for (anonymous, scheme) in [(Anonymous::None, "Basic "), (Anonymous::Pull, "Bearer "), (Anonymous::Push, "Bearer ")]
    {
        let house = House::new(anonymous).await;
        let origin = Origin::new(true, "registry.local:5001");
        let text = house.access.challenge(origin.as_ref(), Wanted::Base, None);
        assert!(text.starts_with(scheme), "{anonymous:?} {text}");
        // Whatever was announced, both are taken.
        let token = house.token("ann", "secret", "").await.unwrap().token;
        assert!(house.bearer(&token).await.is_ok() && house.password("ann", "secret").await.is_ok());
    }
}
