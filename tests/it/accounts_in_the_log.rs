//! Whose account a request to the registry was, in its line of the log: as proved, escaped, and never what proved it.

use std::fs;

use super::support::binary::Binary;
use super::support::client::Call;
use super::support::pushing::Remote;

/// A name that would pass for more than a name in a line that does not quote it.
const ODD: &str = "o\"neil status=200 \\";

#[tokio::test]
async fn a_line_says_whose_account_it_was_and_never_what_proved_it() {
    let home = tempfile::tempdir().unwrap();
    let line = |name: &str| format!("{name}:{}\n", bcrypt::hash("planted-password", 4).unwrap());
    fs::write(home.path().join("htpasswd"), line("anna") + &line(ODD)).unwrap();
    let config = format!(
        "data_dir = {:?}\n[mirror]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[registry]\n\
         listen = \"127.0.0.1:0\"\nhtpasswd = {:?}\nanonymous = \"pull\"\n[[registry.repository]]\npattern = \"**\"\n\
         push = [\"*\"]\n[[upstream]]\nname = \"docker.io\"\nurl = \"http://127.0.0.1:9\"\n",
        home.path().join("data"),
        home.path().join("htpasswd")
    );
    let larder = Binary::start(home.path(), &config, "trace");
    let nobody = Remote::new(larder.registry.unwrap(), "team/app");
    let [anna, odd] = ["anna", ODD].map(|name| nobody.logged_in(name, "planted-password"));
    let digest = anna.push_blob(b"hers").await;
    odd.get("tags/list").await;
    nobody.get("tags/list").await;
    nobody.logged_in("anna", "planted-wrong").get("tags/list").await;
    let granted = anna.send(Call::get("/token?service=larder&scope=repository:team/app:pull&offline_token=true")).await;
    let granted = granted.json();
    let [token, refresh] = ["token", "refresh_token"].map(|key| granted[key].as_str().unwrap().to_owned());
    let bearer = Remote { authorization: Some(format!("Bearer {token}")), ..nobody.clone() };
    assert_eq!(bearer.get(&format!("blobs/{digest}")).await.body, b"hers");
    let form = format!("grant_type=refresh_token&service=larder&client_id=x&refresh_token={refresh}");
    assert_eq!(nobody.send(Call::new("POST", "/token").body(form.as_bytes())).await.status, 200);

    const REQUESTS: usize = 8;
    // The log is written beside the work.
    while larder.log().matches("\"larder::access\"").count() < REQUESTS {
        tokio::task::yield_now().await;
    }
    let log = larder.log();
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let accounts: Vec<_> =
        lines.filter(|line| line["target"] == "larder::access").map(|line| line["account"].clone()).collect();
    let expected = [Some("anna"), Some("anna"), Some(ODD), None, None, Some("anna"), Some("anna"), Some("anna")];
    assert_eq!(accounts, expected.map(serde_json::Value::from));
    let mut secrets = vec!["planted-password".to_owned(), "planted-wrong".to_owned(), token, refresh];
    secrets.extend([&anna, &odd].map(|who| who.authorization.clone().unwrap().replace("Basic ", "")));
    for secret in secrets {
        assert!(!log.contains(&secret), "a secret is written");
    }
}
