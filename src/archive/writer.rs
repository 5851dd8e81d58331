//! An OCI image layout in a tar file, written front to back: what `skopeo copy oci-archive:` and `docker load` read. Never
//! looks at what it is given; whoever writes has checked it.

use std::collections::HashSet;
use std::io::{self, Write};

use serde_json::{Value, json};

use crate::oci::{Digest, Manifest};

/// A tar file consists of blocks of so many bytes, and ends with two empty ones.
const BLOCK: usize = 512;

/// Writes an archive.
pub struct Archive<W> {
    to: W,
    written: HashSet<Digest>,
    // Of the blob that is being written.
    left: u64,
    padding: usize,
}

impl<W: Write> Archive<W> {
    /// Begins one.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(to: W) -> io::Result<Archive<W>> {
        let mut archive = Archive { to, written: HashSet::new(), left: 0, padding: 0 };
        archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(archive)
    }

    /// Begins a blob of so many bytes. Says whether it is wanted: each is written once.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin_blob(&mut self, digest: &Digest, size: u64) -> io::Result<bool> {
        let is_new = self.written.insert(*digest);
        if is_new {
            self.begin_file(&path(digest), size)?;
        }
        Ok(is_new)
    }

    /// More of the blob.
    ///
    /// # Errors
    /// It is longer than was said, or cannot be written.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let longer = || io::Error::new(io::ErrorKind::InvalidData, "a blob is longer than its manifest says");
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(longer)?;
        self.to.write_all(bytes)
    }

    /// The blob has ended.
    ///
    /// # Errors
    /// It is shorter than was said, or cannot be written.
    pub fn end_blob(&mut self) -> io::Result<()> {
        if self.left > 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a blob is shorter than its manifest says"));
        }
        self.to.write_all(&[0; BLOCK][..self.padding])
    }

    /// A blob in one go.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn blob(&mut self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        if self.begin_blob(digest, bytes.len() as u64)? {
            self.append(bytes)?;
            self.end_blob()?;
        }
        Ok(())
    }

    /// Ends the archive: `root` is the manifest that it is about, called `name` (`docker.io/library/alpine:3.20`) with the
    /// tag `tag`; `loadable` the image that `docker load` gets.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn end(
        mut self,
        (root, size, media_type): (&Digest, u64, &str),
        (name, tag): (&str, &str),
        loadable: Option<&Manifest>,
    ) -> io::Result<W> {
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": media_type,
                "digest": root.to_string(),
                "size": size,
                "annotations": {
                    "org.opencontainers.image.ref.name": tag,
                    "io.containerd.image.name": name,
                },
            }],
        });
        self.file("index.json", index.to_string().as_bytes())?;
        // What Docker reads that knows nothing of layouts: before 25, with the store it had until then.
        if let Some((image, config)) = loadable.and_then(|image| Some((image, image.config.as_ref()?))) {
            let layers: Vec<String> = image.layers.iter().map(|layer| path(&layer.digest)).collect();
            let manifest: Value = json!([{"Config": path(&config.digest), "RepoTags": [name], "Layers": layers}]);
            self.file("manifest.json", manifest.to_string().as_bytes())?;
        }
        self.to.write_all(&[0; 2 * BLOCK])?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn file(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.begin_file(path, bytes.len() as u64)?;
        self.append(bytes)?;
        self.end_blob()
    }

    fn begin_file(&mut self, path: &str, size: u64) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_path(path)?;
        header.set_size(size);
        header.set_mode(0o644);
        // The same image makes the same archive.
        header.set_mtime(0);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        self.left = size;
        self.padding = (BLOCK - (size % BLOCK as u64) as usize) % BLOCK;
        self.to.write_all(header.as_bytes())
    }
}

fn path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn an_archive_has_each_blob_once_and_says_what_it_is_about() {
        let mut archive = Archive::begin(Vec::new()).unwrap();
        let blobs: [&[u8]; 3] = [b"one", &[7; 512], b""];
        for bytes in blobs {
            archive.blob(&Digest::sha256(bytes), bytes).unwrap();
            archive.blob(&Digest::sha256(bytes), bytes).unwrap();
        }
        let root = Digest::sha256(b"one");
        let bytes = archive.end((&root, 3, "m"), ("docker.io/library/a:v1", "v1"), None).unwrap();
        assert_eq!(bytes.len() % BLOCK, 0);
        let mut found = Vec::new();
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            found.push((entry.path().unwrap().to_str().unwrap().to_owned(), content));
        }
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        let [one, two, three] = blobs.map(|bytes| path(&Digest::sha256(bytes)));
        assert_eq!(names, ["oci-layout", &one, &two, &three, "index.json"]);
        assert_eq!((&found[1].1[..], &found[2].1[..], found[3].1.len()), (blobs[0], blobs[1], 0));
        let index: Value = serde_json::from_slice(&found[4].1).unwrap();
        assert_eq!(index["manifests"][0]["digest"], root.to_string());
    }

    #[test]
    fn a_blob_of_another_length_than_was_said_is_an_error() {
        let mut archive = Archive::begin(Vec::new()).unwrap();
        archive.begin_blob(&Digest::sha256(b"one"), 3).unwrap();
        archive.append(b"on").unwrap();
        assert!(archive.end_blob().is_err());
        assert!(archive.append(b"es").is_err());
    }
}
