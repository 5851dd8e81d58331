//! The registry API as Docker Hub answers it (`protocol.md`, section 2), read-only.

use bytes::Bytes;
use hyper::Method;
use hyper::header::{ACCEPT, ETAG, IF_NONE_MATCH, LINK, LOCATION};
use larder::oci::{Digest, MediaType};
use serde_json::json;

use super::content::{Repo, Stored};
use super::endpoint::Endpoint;
use super::reply::Reply;
use super::seen::Seen;
use super::serve::{Settings, Shared};
use super::{cdn, token};

/// The registry's answer.
pub fn answer(shared: &Shared, seen: &Seen) -> Reply {
    let settings = shared.settings.lock().unwrap().clone();
    if settings.auth
        && seen.endpoint != Endpoint::Unknown
        && let Some(refusal) = token::refusal(shared, seen, seen.endpoint.repo())
    {
        return signed(refusal);
    }
    signed(match &seen.endpoint {
        Endpoint::Ping => Reply::new(200, "application/json", "{}"),
        Endpoint::Manifest(repo, reference) => manifest(shared, seen, repo, reference),
        Endpoint::Blob(repo, digest) => blob(shared, seen, &settings, repo, digest),
        Endpoint::Tags(repo) => in_repo(shared, repo, |content| tags(content, seen, &settings, repo)),
        Endpoint::Referrers(repo, digest) => referrers(shared, &settings, repo, digest),
        Endpoint::Token | Endpoint::Cdn(_) | Endpoint::Unknown => page_not_found(),
    })
}

fn signed(reply: Reply) -> Reply {
    reply.with_named("docker-distribution-api-version", "registry/2.0")
}

fn page_not_found() -> Reply {
    Reply::new(404, "text/plain; charset=utf-8", "404 page not found\n")
}

fn in_repo(shared: &Shared, repo: &str, answer: impl FnOnce(&Repo) -> Reply) -> Reply {
    match shared.content.lock().unwrap().repos.get(repo) {
        Some(content) => answer(content),
        None => Reply::error(404, "NAME_UNKNOWN", "repository name not known to registry"),
    }
}

fn manifest(shared: &Shared, seen: &Seen, repo: &str, reference: &str) -> Reply {
    let limited = |reply: Reply, rate: Option<(u64, u64)>| match rate {
        None => reply,
        Some((limit, remaining)) => reply
            .with_named("ratelimit-limit", &format!("{limit};w=21600"))
            .with_named("ratelimit-remaining", &format!("{remaining};w=21600"))
            .with_named("docker-ratelimit-source", "127.0.0.1"),
    };
    let rate = shared.settings.lock().unwrap().rate_limit;
    if seen.method == Method::GET && matches!(rate, Some((_, 0))) {
        let message =
            "You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit";
        return limited(Reply::error(429, "TOOMANYREQUESTS", message), rate);
    }
    let api = shared.settings.lock().unwrap().referrers_api;
    let reply = in_repo(shared, repo, |content| found(content, seen, reference, api));
    let mut settings = shared.settings.lock().unwrap();
    if let (true, Some((_, remaining))) = (seen.method == Method::GET && reply.is_success(), &mut settings.rate_limit) {
        *remaining -= 1;
    }
    limited(reply, settings.rate_limit)
}

fn found(repo: &Repo, seen: &Seen, reference: &str, referrers_api: bool) -> Reply {
    let unknown = || Reply::error(404, "MANIFEST_UNKNOWN", "manifest unknown");
    let Some(digest) = repo.resolve(reference) else {
        return if referrers_api { unknown() } else { fallback_index(repo, reference).unwrap_or_else(unknown) };
    };
    let mut stored = (digest, &repo.manifests[&digest]);
    let accepted = accepted(seen);
    let by_tag = !reference.contains(':');
    match stored.1.media_type {
        kind @ (MediaType::OciIndex | MediaType::OciManifest) if !accepted.contains(&kind) => {
            let message = "OCI content found, but accept header does not support it";
            return Reply::error(404, "MANIFEST_UNKNOWN", message);
        }
        MediaType::DockerList if by_tag && !accepted.contains(&MediaType::DockerList) => {
            let child = stored.1.amd64().and_then(|child| Some((child, repo.manifests.get(&child)?)));
            let Some(child) = child else { return unknown() };
            stored = child;
        }
        _ => {}
    }
    content_of(seen, stored.0, stored.1)
}

fn content_of(seen: &Seen, digest: Digest, stored: &Stored) -> Reply {
    let etag = format!("\"{digest}\"");
    let (status, bytes) =
        if seen.header(IF_NONE_MATCH) == Some(&etag) { (304, Bytes::new()) } else { (200, stored.bytes.clone()) };
    Reply::new(status, stored.media_type.as_str(), bytes)
        .with_named("docker-content-digest", &digest.to_string())
        .with(ETAG, &etag)
}

/// Types that the client takes. Docker Hub's software does not look at `*/*`.
fn accepted(seen: &Seen) -> Vec<MediaType> {
    let lines = seen.headers.get_all(ACCEPT).iter().map(|line| line.to_str().unwrap());
    lines.flat_map(|line| line.split(',')).filter_map(|kind| kind.parse().ok()).collect()
}

/// The index that clients maintain under a tag where there is no referrers API; here the hub does it for them. As any
/// manifest it can be asked for by that tag and by its digest.
fn fallback_index(repo: &Repo, reference: &str) -> Option<Reply> {
    let of = |subject: &str| {
        let index = repo.referrers(subject);
        let has_any = index["manifests"].as_array().is_some_and(|list| !list.is_empty());
        has_any.then(|| index.to_string())
    };
    let digest_of = |index: &str| Digest::sha256(index.as_bytes()).to_string();
    let index = if reference.contains(':') {
        repo.manifests.keys().find_map(|subject| of(&subject.to_string()).filter(|index| digest_of(index) == reference))
    } else {
        of(&reference.replacen('-', ":", 1))
    };
    index.map(|index| {
        let digest = digest_of(&index);
        Reply::new(200, MediaType::OciIndex.as_str(), index).with_named("docker-content-digest", &digest)
    })
}

fn blob(shared: &Shared, seen: &Seen, settings: &Settings, repo: &str, digest: &str) -> Reply {
    let known = |content: &Repo| digest.parse().ok().filter(|digest: &Digest| content.blobs.contains(digest));
    let mut wanted = None;
    let unknown = in_repo(shared, repo, |content| {
        wanted = known(content);
        Reply::error(404, "BLOB_UNKNOWN", "blob unknown to registry")
    });
    let Some(digest) = wanted else { return unknown };
    if let Some(status) = settings.redirect {
        return Reply::new(status, "application/octet-stream", "").with(LOCATION, &cdn::sign(shared, &digest));
    }
    let bytes = shared.content.lock().unwrap().blobs[&digest].clone();
    let etag = format!("\"{digest}\"");
    let reply = Reply::new(200, "application/octet-stream", bytes)
        .with_named("docker-content-digest", &digest.to_string())
        .with_named("accept-ranges", "bytes")
        .with(ETAG, &etag);
    cdn::ranged(reply, seen, &etag)
}

fn tags(repo: &Repo, seen: &Seen, settings: &Settings, name: &str) -> Reply {
    let last = seen.query("last").unwrap_or_default();
    let most = seen.query("n").map_or(settings.page, |n| n.parse().unwrap()).min(settings.page);
    let behind: Vec<&String> = repo.tags.keys().filter(|tag| **tag > last).collect();
    let page = &behind[..most.min(behind.len())];
    let reply = Reply::new(200, "application/json", json!({"name": name, "tags": page}).to_string());
    match page.last() {
        Some(last) if page.len() < behind.len() => {
            reply.with(LINK, &format!("</v2/{name}/tags/list?last={last}&n={most}>; rel=\"next\""))
        }
        _ => reply,
    }
}

fn referrers(shared: &Shared, settings: &Settings, repo: &str, digest: &str) -> Reply {
    if !settings.referrers_api {
        return page_not_found();
    }
    let content = shared.content.lock().unwrap();
    let list = content.repos.get(repo).map_or_else(|| Repo::default().referrers(digest), |repo| repo.referrers(digest));
    Reply::new(200, MediaType::OciIndex.as_str(), list.to_string())
}
