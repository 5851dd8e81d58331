//! Finding out what there is: tags and the catalogue, in pages.

use std::collections::BTreeSet;

use larder::oci::{Digest, MediaType};
use serde_json::json;

use super::{REPO, Registry};
use crate::support::client::{Answer, Call};
use crate::support::pushing::{Remote, index, refusal};

fn entries(answer: &Answer, key: &str) -> Vec<String> {
    let list = answer.json()[key].as_array().unwrap().clone();
    list.iter().map(|entry| entry.as_str().unwrap().to_owned()).collect()
}

/// Follows `Link` to the end.
async fn pages(repo: &Remote, path: &str, key: &str, n: usize) -> Vec<String> {
    let (mut all, mut path) = (Vec::new(), path.to_owned());
    loop {
        let answer = repo.send(Call::get(&path)).await;
        assert_eq!(answer.status, 200);
        let page = entries(&answer, key);
        let Some(link) = answer.header("link") else {
            all.extend(page);
            return all;
        };
        assert_eq!(page.len(), n, "a page is short only at the end");
        all.extend(page);
        path = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned();
    }
}

#[tokio::test]
async fn tags_are_listed_in_byte_order_and_in_pages() {
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let mut tags = ["latest", "1.10", "1.9", "1.9-rc_1", "Z", "_x", "a.b"].map(str::to_owned).to_vec();
    for tag in &tags {
        repo.push_manifest(tag, &index(&[])).await;
    }
    tags.sort();
    let all = repo.get("tags/list").await;
    assert_eq!((all.json(), all.header("link")), (json!({"name": REPO, "tags": tags}), None));
    assert_eq!(all.header("content-type"), Some("application/json"));
    for n in 1..=tags.len() {
        assert_eq!(pages(&repo, &repo.path(&format!("tags/list?n={n}")), "tags", n).await, tags);
    }
    let none = repo.get("tags/list?n=0").await;
    assert_eq!((entries(&none, "tags").len(), none.header("link")), (0, None));
    for (last, from) in [("1.9", 2), ("1.95", 3), ("zzz", 7), ("", 0)] {
        let rest = repo.get(&format!("tags/list?last={last}")).await;
        assert_eq!(entries(&rest, "tags"), tags[from..], "{last}");
    }
    let exact = repo.get(&format!("tags/list?n={}", tags.len())).await;
    assert_eq!(exact.header("link"), None);
    for n in ["-1", "x", "9999999999999999999999"] {
        let answer = repo.get(&format!("tags/list?n={n}")).await;
        assert_eq!(answer.status, if n.len() > 2 { 200 } else { 400 }, "{n}");
    }
}

#[tokio::test]
async fn a_list_without_an_end_comes_in_pages_that_nobody_asked_for() {
    const PAGE: usize = 1000;
    let registry = Registry::open().await;
    let repo = registry.repo(REPO);
    let bytes = index(&[]).to_string().into_bytes();
    let tags: Vec<String> = (0..1100).map(|n| format!("t{n:04}")).collect();
    for some in tags.chunks(100) {
        let query: Vec<String> = some.iter().map(|tag| format!("tag={tag}")).collect();
        let reference = format!("{}?{}", Digest::sha256(&bytes), query.join("&"));
        assert_eq!(repo.put(reference, MediaType::OciIndex.as_str(), &bytes).await.status, 201);
    }
    for n in ["", "?n=100000", "?n=18446744073709551615"] {
        assert_eq!(pages(&repo, &repo.path(&format!("tags/list{n}")), "tags", PAGE).await, tags, "{n}");
    }
}

#[tokio::test]
async fn the_catalogue_lists_what_is_hosted_and_in_pages() {
    let registry = Registry::open().await;
    let names = ["a", "a/b", "a-b/c", "team/app", "team/app/deep/er", "z"];
    for name in names {
        registry.repo(name).push_manifest("latest", &index(&[])).await;
    }
    let expected: BTreeSet<String> = names.into_iter().map(str::to_owned).collect();
    let expected: Vec<String> = expected.into_iter().collect();
    let repo = registry.repo(REPO);
    let all = repo.send(Call::get("/v2/_catalog")).await;
    assert_eq!((entries(&all, "repositories"), all.header("link")), (expected.clone(), None));
    for n in 1..=names.len() {
        assert_eq!(pages(&repo, &format!("/v2/_catalog?n={n}"), "repositories", n).await, expected);
    }
    assert_eq!(entries(&repo.send(Call::get("/v2/_catalog?n=0")).await, "repositories").len(), 0);
    let rest = repo.send(Call::get("/v2/_catalog?last=a-b%2Fzz")).await;
    assert_eq!(entries(&rest, "repositories"), expected[2..]);
    let both = repo.send(Call::get("/v2/_catalog?last=a%2Fb&n=2")).await;
    assert_eq!(entries(&both, "repositories"), expected[3..5]);
    assert_eq!(both.header("link"), Some("</v2/_catalog?n=2&last=team%2Fapp%2Fdeep%2Fer>; rel=\"next\""));
    let huge = repo.send(Call::get("/v2/_catalog?n=9223372036854775807")).await;
    assert_eq!(entries(&huge, "repositories"), expected, "a number of the client's allocates nothing");
    // What nothing is in any more is not listed.
    let z = registry.repo("z");
    let digest = z.get("manifests/latest").await.header("docker-content-digest").unwrap().to_owned();
    assert_eq!(z.ask("DELETE", &format!("manifests/{digest}")).await.status, 202);
    assert_eq!(entries(&repo.send(Call::get("/v2/_catalog")).await, "repositories"), expected[..5]);
    assert_eq!(refusal(&repo.send(Call::get("/v2/_catalog?last=NO")).await).0, 400);
}

#[tokio::test]
async fn a_client_learns_at_once_that_this_is_a_registry() {
    let registry = Registry::open().await;
    for path in ["/v2/", "/v2"] {
        let answer = Call::get(path).send(registry.larder.registry()).await;
        assert_eq!((answer.status, answer.header("docker-distribution-api-version")), (200, Some("registry/2.0")));
    }
    for path in ["/", "/v1/_ping", "/v2/team", "/v2/team/app/nothing/here"] {
        assert_eq!(Call::get(path).send(registry.larder.registry()).await.status, 404, "{path}");
    }
    let invalid = Call::get("/v2/Team/App/tags/list").send(registry.larder.registry()).await;
    assert_eq!(refusal(&invalid), (400, "NAME_INVALID".into()));
}

#[tokio::test]
async fn the_figures_tell_the_registrys_requests_and_connections() {
    let registry = Registry::open().await;
    let (larder, repo) = (&registry.larder, registry.repo(REPO));
    repo.push_blob(b"counted").await;
    repo.get("tags/list").await;
    assert_eq!(larder.metric("larder_requests_total", "endpoint=\"upload\",method=\"POST\"").await, 1.0);
    assert_eq!(larder.metric("larder_requests_total", "endpoint=\"upload\",method=\"PUT\"").await, 1.0);
    let _open = crate::support::client::Connection::open(repo.at).await.unwrap();
    while larder.metric("larder_connections", "listener=\"registry\"").await < 1.0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(Call::get("/readyz").send(larder.admin()).await.status, 200);
}
