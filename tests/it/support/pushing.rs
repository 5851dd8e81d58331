//! Pushing as the specification describes it, one step at a time or all at once, so that each test can do one of them wrong.

use std::net::SocketAddr;

use larder::oci::{Digest, MediaType};
use serde_json::{Value, json};

use super::client::{Answer, Call};
use super::image::Image;

/// A repository on a registry, as a client sees it.
#[derive(Clone, Debug)]
pub struct Remote {
    /// The registry.
    pub at: SocketAddr,
    /// The repository's name.
    pub name: String,
    /// What is sent as `Authorization`, if anything is.
    pub authorization: Option<String>,
}

impl Remote {
    /// A repository, asked by nobody in particular.
    pub fn new(at: SocketAddr, name: &str) -> Remote {
        Remote { at, name: name.into(), authorization: None }
    }

    /// The same, asked by someone with a password.
    pub fn logged_in(&self, user: &str, password: &str) -> Remote {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        Remote { authorization: Some(format!("Basic {encoded}")), ..self.clone() }
    }

    /// The path of something in it.
    pub fn path(&self, below: &str) -> String {
        format!("/v2/{}/{below}", self.name)
    }

    /// Sends a call, as whoever this is.
    pub async fn send(&self, call: Call) -> Answer {
        match &self.authorization {
            Some(authorization) => call.header("Authorization", authorization).send(self.at).await,
            None => call.send(self.at).await,
        }
    }

    /// A request without a body for something in it.
    pub async fn ask(&self, method: &str, below: &str) -> Answer {
        self.send(Call::new(method, &self.path(below))).await
    }

    /// GET of something in it.
    pub async fn get(&self, below: &str) -> Answer {
        self.ask("GET", below).await
    }

    /// HEAD of something in it.
    pub async fn head(&self, below: &str) -> Answer {
        self.ask("HEAD", below).await
    }

    /// Begins an upload; where it is.
    pub async fn begin(&self) -> String {
        let answer = self.ask("POST", "blobs/uploads/").await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.header("location").unwrap().to_owned()
    }

    /// PATCH of a whole or a part.
    pub async fn patch(&self, location: &str, range: Option<(usize, usize)>, bytes: &[u8]) -> Answer {
        let call = Call::new("PATCH", location).header("Content-Type", "application/octet-stream").body(bytes);
        self.send(match range {
            Some((first, last)) => call.header("Content-Range", &format!("{first}-{last}")),
            None => call,
        })
        .await
    }

    /// PUT that ends an upload.
    pub async fn complete(&self, location: &str, digest: impl ToString, bytes: &[u8]) -> Answer {
        self.send(Call::new("PUT", &with_digest(location, digest)).body(bytes)).await
    }

    /// Pushes a blob by POST and PUT; its digest.
    pub async fn push_blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        let location = self.begin().await;
        let answer = self.complete(&location, digest, bytes).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        digest
    }

    /// PUT of a manifest.
    pub async fn put(&self, reference: impl ToString, media_type: &str, bytes: &[u8]) -> Answer {
        let path = self.path(&format!("manifests/{}", reference.to_string()));
        self.send(Call::new("PUT", &path).header("Content-Type", media_type).body(bytes)).await
    }

    /// Pushes a manifest that has to be taken; its digest.
    pub async fn push_manifest(&self, reference: impl ToString, manifest: &Value) -> Digest {
        let bytes = manifest.to_string().into_bytes();
        let media_type = manifest["mediaType"].as_str().unwrap_or(MediaType::OciManifest.as_str());
        let answer = self.put(reference, media_type, &bytes).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        Digest::sha256(&bytes)
    }

    /// Pushes an image with all that is below it, under a tag; its digest.
    pub async fn push(&self, tag: &str, image: &Image) -> Digest {
        for child in &image.children {
            Box::pin(self.push(&Digest::sha256(&child.manifest).to_string(), child)).await;
        }
        for blob in &image.blobs {
            self.push_blob(blob).await;
        }
        let answer = self.put(tag, image.media_type.as_str(), &image.manifest).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        Digest::sha256(&image.manifest)
    }

    /// That an image can be pulled under a reference, byte for byte, with all that is below it.
    pub async fn assert_pulls(&self, reference: impl ToString, image: &Image) {
        let call = Call::get(&self.path(&format!("manifests/{}", reference.to_string())));
        let answer = self.send(call.header("Accept", image.media_type.as_str())).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &image.manifest[..]), "{}", answer.text());
        assert_eq!(answer.header("content-type"), Some(image.media_type.as_str()));
        for child in &image.children {
            Box::pin(self.assert_pulls(Digest::sha256(&child.manifest), child)).await;
        }
        for blob in &image.blobs {
            let answer = self.get(&format!("blobs/{}", Digest::sha256(blob))).await;
            assert_eq!((answer.status, &answer.body[..]), (200, &blob[..]));
        }
    }
}

/// An upload's address with the digest that ends it, however it looks already.
pub fn with_digest(location: &str, digest: impl ToString) -> String {
    let joint = if location.contains('?') { '&' } else { '?' };
    format!("{location}{joint}digest={}", digest.to_string())
}

/// A descriptor of some bytes.
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::sha256(bytes).to_string(), "size": bytes.len()})
}

/// An OCI image manifest of a config and layers.
pub fn manifest(config: &Value, layers: &[Value]) -> Value {
    json!({"schemaVersion": 2, "mediaType": MediaType::OciManifest.as_str(), "config": config, "layers": layers})
}

/// An OCI index of these.
pub fn index(manifests: &[Value]) -> Value {
    json!({"schemaVersion": 2, "mediaType": MediaType::OciIndex.as_str(), "manifests": manifests})
}

/// The code and the status of an error.
pub fn refusal(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned())
}
