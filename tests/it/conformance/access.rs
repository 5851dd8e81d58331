//! Who may: challenges, passwords, tokens, and that what one may not see looks like nothing.

use std::fmt::Write as _;

use super::Registry;
use crate::support::client::{Answer, Call};
use crate::support::image::Image;
use crate::support::pushing::{Remote, refusal};

const RULES: &str = "[[registry.repository]]\npattern = \"secret/**\"\npull = [\"anna\"]\npush = [\"anna\"]\ndelete = [\"anna\"]\n\
    [[registry.repository]]\npattern = \"team/**\"\npull = [\"*\"]\npush = [\"anna\"]";

/// A registry with two accounts, anna and bert, whose passwords are their names backwards.
async fn with_accounts(anonymous: &str) -> (Registry, tempfile::TempDir) {
    let home = tempfile::tempdir().unwrap();
    let mut accounts = String::new();
    for (name, password) in [("anna", "anna-secret"), ("bert", "bert-secret")] {
        writeln!(accounts, "{name}:{}", bcrypt::hash(password, 4).unwrap()).unwrap();
    }
    let file = home.path().join("htpasswd");
    std::fs::write(&file, accounts).unwrap();
    let rules = format!("htpasswd = {file:?}\nanonymous = \"{anonymous}\"\n{RULES}");
    (Registry::with(&rules).await, home)
}

fn shape(answer: &Answer) -> (u16, String, Option<String>) {
    let challenge =
        answer.header("www-authenticate").map(|challenge| challenge.replace("secret/there", "secret/absent"));
    (answer.status, answer.text(), challenge)
}

#[tokio::test]
async fn docker_login_is_asked_for_a_password_and_only_the_right_one_is_taken() {
    let (registry, _home) = with_accounts("none").await;
    let base = Remote::new(registry.larder.registry(), "team/app");
    let ping = |remote: Remote| async move { remote.send(Call::get("/v2/")).await };
    let challenged = ping(base.clone()).await;
    assert_eq!(refusal(&challenged), (401, "UNAUTHORIZED".into()));
    assert_eq!(challenged.header("www-authenticate"), Some("Basic realm=\"larder\""));
    assert_eq!(challenged.header("docker-distribution-api-version"), Some("registry/2.0"));
    assert_eq!(ping(base.logged_in("anna", "anna-secret")).await.status, 200);
    for (user, password) in [("anna", "wrong"), ("nobody", "anna-secret"), ("", "x")] {
        let answer = ping(base.logged_in(user, password)).await;
        assert_eq!((answer.status, answer.header("www-authenticate").is_some()), (401, true), "{user}");
    }
    for header in ["Bearer forged", "Digest x", "Basic %%%"] {
        let answer = base.send(Call::get("/v2/").header("Authorization", header)).await;
        assert_eq!((answer.status, answer.header("www-authenticate").is_some()), (401, true), "{header}");
    }
}

#[tokio::test]
async fn rights_are_those_of_the_rules() {
    let (registry, _home) = with_accounts("pull").await;
    let image = Image::small(1);
    let nobody = registry.repo("team/app");
    let (anna, bert) = (nobody.logged_in("anna", "anna-secret"), nobody.logged_in("bert", "bert-secret"));
    anna.push("latest", &image).await;
    for who in [&nobody, &anna, &bert] {
        who.assert_pulls("latest", &image).await;
    }
    assert_eq!(refusal(&nobody.ask("POST", "blobs/uploads/").await), (401, "UNAUTHORIZED".into()));
    assert_eq!(refusal(&bert.ask("POST", "blobs/uploads/").await), (403, "DENIED".into()));
    assert_eq!(refusal(&anna.ask("DELETE", "manifests/latest").await), (403, "DENIED".into()));
    assert_eq!(refusal(&bert.put("x", "application/json", b"{}").await), (403, "DENIED".into()));
    let elsewhere = Remote { name: "library/alpine".into(), ..anna.clone() };
    let refused = elsewhere.ask("POST", "blobs/uploads/").await;
    assert_eq!(refusal(&refused), (403, "DENIED".into()));
    assert!(refused.text().contains("secret/**, team/**"));
}

#[tokio::test]
async fn what_one_may_not_see_cannot_be_told_from_what_is_not_there() {
    let (registry, _home) = with_accounts("none").await;
    let image = Image::small(1);
    let there = registry.repo("secret/there");
    let digest = there.logged_in("anna", "anna-secret").push("latest", &image).await;
    let location = there.logged_in("anna", "anna-secret").begin().await;
    let upload = location.rsplit('/').next().unwrap();
    for who in [None, Some("bert")] {
        let as_who = |name: &str| {
            let remote = registry.repo(name);
            who.map_or(remote.clone(), |user| remote.logged_in(user, "bert-secret"))
        };
        let (there, absent) = (as_who("secret/there"), as_who("secret/absent"));
        for (method, path) in [
            ("GET", "manifests/latest".to_owned()),
            ("HEAD", "manifests/latest".to_owned()),
            ("GET", format!("manifests/{digest}")),
            ("GET", format!("blobs/{}", image.layer(0).0)),
            ("GET", "tags/list".into()),
            ("GET", format!("referrers/{digest}")),
            ("PUT", "manifests/latest".into()),
            ("DELETE", "manifests/latest".into()),
            ("POST", "blobs/uploads/".into()),
            ("POST", format!("blobs/uploads/?mount={}", image.layer(0).0)),
            ("GET", format!("blobs/uploads/{upload}")),
            ("PATCH", format!("blobs/uploads/{upload}")),
        ] {
            let (one, other) = (there.ask(method, &path).await, absent.ask(method, &path).await);
            assert_eq!(shape(&one), shape(&other), "{who:?} {method} {path}");
            assert!(one.status >= 400 || path.starts_with("referrers"), "{who:?} {method} {path}");
        }
    }
    // Nor does a mount reach into it.
    let bert = registry.repo("team/app").logged_in("anna", "anna-secret");
    let mount = |from: &str| format!("blobs/uploads/?mount={}{from}", image.layer(0).0);
    assert_eq!(bert.ask("POST", &mount("&from=secret/there")).await.status, 201, "anna may");
    let (open, _home) = with_accounts("push").await;
    drop(open);
    let catalogue = registry.repo("x").logged_in("bert", "bert-secret").send(Call::get("/v2/_catalog")).await;
    assert_eq!(catalogue.json()["repositories"], serde_json::json!(["team/app"]));
    let catalogue = registry.repo("x").send(Call::get("/v2/_catalog")).await;
    assert_eq!(refusal(&catalogue), (401, "UNAUTHORIZED".into()));
}

/// Credentials that are none (reliability.md, S12): each is 401 with the challenge, 400 where it is not even HTTP, 431 where
/// it is too long, and opens nothing.
#[tokio::test]
async fn no_forged_credential_opens_anything() {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    for anonymous in ["none", "pull"] {
        let (registry, _home) = with_accounts(anonymous).await;
        let repo = registry.repo("secret/there");
        let anna = repo.logged_in("anna", "anna-secret");
        anna.push("latest", &Image::small(1)).await;
        let granted = anna.send(Call::get("/token?service=larder&scope=repository:secret/there:pull")).await;
        let token = granted.json()["token"].as_str().unwrap().to_owned();
        let (claims, mac) = token.split_once('.').unwrap();
        let said = String::from_utf8(URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        let mut forged = Vec::new();
        for (old, new) in
            [("pull", "pull,push,delete"), ("anna", "root"), ("\"access\"", "\"refresh\""), ("\"exp\":1", "\"exp\":9")]
        {
            forged.push(format!("{}.{mac}", URL_SAFE_NO_PAD.encode(said.replace(old, new))));
        }
        for header in [
            r#"{"alg":"none","typ":"JWT"}"#,
            r#"{"alg":"HS256","kid":"../../../dev/null"}"#,
            r#"{"alg":"RS256","jwk":{"kty":"RSA","n":"AQAB","e":"AQAB"}}"#,
            r#"{"alg":"RS256","x5u":"http://127.0.0.1:1/x"}"#,
        ] {
            let header = URL_SAFE_NO_PAD.encode(header);
            forged.extend([
                format!("{header}.{claims}."),
                format!("{header}.{claims}.{mac}"),
                format!("{header}.{mac}"),
            ]);
        }
        forged.extend([
            format!("{token} "),
            format!("{token}.{mac}"),
            token.to_uppercase(),
            mac.to_owned(),
            ".".into(),
        ]);
        let mut shown: Vec<String> = forged.iter().map(|token| format!("Bearer {token}")).collect();
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        shown.extend(
            ["anna:", "anna", ":", ":anna-secret", "anna:anna-secret\0", "anna\0:anna-secret", "anna:anna-secret:x"]
                .map(basic),
        );
        shown.extend([
            basic(&format!("anna:{}", "x".repeat(5000))),
            "Basic !!!!".into(),
            "Basic".into(),
            "bearer".into(),
        ]);
        shown.extend([format!("Bearer {token}, Bearer {token}"), format!("Basic {token}"), "Negotiate YII=".into()]);
        for credential in shown {
            let call = Call::get(&repo.path("manifests/latest")).header("Authorization", &credential);
            let answer = repo.send(call).await;
            // `Bearer x ` is `Bearer x`: HTTP takes spaces away at the end of a header.
            if credential == format!("Bearer {token} ") {
                assert_eq!(answer.status, 200);
                continue;
            }
            assert_eq!(answer.status, 401, "{credential}: {}", answer.text());
            let challenge = answer.header("www-authenticate").unwrap();
            assert!(challenge.starts_with(if anonymous == "none" { "Basic" } else { "Bearer" }), "{challenge}");
        }
        let long = Call::get(&repo.path("manifests/latest"))
            .header("Authorization", &format!("Bearer {}", "a".repeat(1 << 20)));
        assert_eq!(repo.send(long).await.status, 431);
        let right = anna.logged_in("anna", "anna-secret").authorization.unwrap();
        let twice =
            Call::get(&repo.path("manifests/latest")).header("Authorization", &right).header("Authorization", &right);
        assert_eq!(repo.send(twice).await.status, 401, "which of the two is meant?");
    }
}

#[tokio::test]
async fn an_upload_is_only_for_who_began_it() {
    let rules = "[[registry.repository]]\npattern = \"**\"\npush = [\"*\"]";
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("htpasswd");
    let line = |name: &str| format!("{name}:{}\n", bcrypt::hash("secret", 4).unwrap());
    std::fs::write(&file, line("anna") + &line("bert")).unwrap();
    let registry = Registry::with(&format!("htpasswd = {file:?}\n{rules}")).await;
    let repo = registry.repo("team/app");
    let (anna, bert) = (repo.logged_in("anna", "secret"), repo.logged_in("bert", "secret"));
    let location = anna.begin().await;
    for method in ["GET", "PATCH", "DELETE"] {
        let answer = bert.send(Call::new(method, &location)).await;
        assert_eq!(refusal(&answer), (404, "BLOB_UPLOAD_UNKNOWN".into()), "{method}");
    }
    assert_eq!(anna.send(Call::get(&location)).await.status, 204);
}

#[tokio::test]
async fn a_token_does_what_it_lists_and_no_more() {
    let (registry, _home) = with_accounts("pull").await;
    let at = registry.larder.registry();
    let nobody = registry.repo("team/app");
    let challenge = nobody.ask("POST", "blobs/uploads/").await;
    let challenge = challenge.header("www-authenticate").unwrap().to_owned();
    assert_eq!(
        challenge,
        format!("Bearer realm=\"http://{at}/token\",service=\"larder\",scope=\"repository:team/app:pull,push\"")
    );
    let anna = nobody.logged_in("anna", "anna-secret");
    let token = |scope: &'static str| {
        let anna = anna.clone();
        async move {
            let answer = anna.send(Call::get(&format!("/token?service=larder&scope={scope}"))).await;
            assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{}", answer.text());
            format!("Bearer {}", answer.json()["token"].as_str().unwrap())
        }
    };
    let push = Remote { authorization: Some(token("repository:team/app:pull,push").await), ..nobody.clone() };
    let image = Image::small(3);
    push.push("latest", &image).await;
    let pull = Remote { authorization: Some(token("repository:team/app:pull").await), ..nobody.clone() };
    pull.assert_pulls("latest", &image).await;
    let refused = pull.ask("POST", "blobs/uploads/").await;
    assert_eq!(refused.status, 401);
    assert!(refused.header("www-authenticate").unwrap().ends_with("error=\"insufficient_scope\""));
    assert_eq!(pull.send(Call::get("/v2/")).await.status, 200);
    let expired = Call::get("/v2/").header("Authorization", "Bearer a.b.c").send(at).await;
    assert!(expired.header("www-authenticate").unwrap().contains("error=\"invalid_token\""));
    let wrong = nobody.logged_in("anna", "wrong").send(Call::get("/token?service=larder")).await;
    assert_eq!((wrong.status, wrong.header("www-authenticate").is_some()), (401, true));
    let posted =
        Call::new("POST", "/token").body(b"grant_type=password&username=anna&password=anna-secret&service=larder");
    assert_eq!(posted.send(at).await.status, 200);
    let endless = Call::new("POST", "/token").body(&vec![b'a'; 1 << 20]).send(at).await;
    assert_eq!(refusal(&endless), (413, "SIZE_INVALID".into()));
}
