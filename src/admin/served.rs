//! What a server serves, and which of it a person means by an image's name: a repository of ours, or one that is mirrored.
//! The mirror's door decides the same way for what clients ask.

use std::sync::Arc;

use crate::cache::Cache;
use crate::http::{Activity, Ours};
use crate::oci::{ImageName, RepoName, Repository};
use crate::routing::{RouteError, Routes};

/// What is served.
#[derive(Clone)]
pub struct Served {
    /// The mirror.
    pub cache: Arc<Cache>,
    /// Which names are which registry's.
    pub routes: Routes,
    /// The private registry, if there is one.
    pub ours: Option<Ours>,
    /// What clients were given lately.
    pub activity: Activity,
    /// Where clients find the mirror, as a URL.
    pub mirror: String,
}

/// Where an image is.
pub enum Home<'a> {
    /// In a repository of ours.
    Ours(&'a Ours, RepoName),
    /// In a registry that is mirrored.
    Mirrored(Repository),
}

impl Served {
    /// Where `image` is. A name that is ours is never looked for anywhere else.
    ///
    /// # Errors
    /// Its registry is not mirrored here, or it may not be pulled.
    pub fn home(&self, image: &ImageName) -> Result<Home<'_>, RouteError> {
        home(&self.routes, self.ours.as_ref(), image)
    }
}

/// Where `image` is. A name that is ours is never looked for anywhere else.
///
/// # Errors
/// Its registry is not mirrored here, or it may not be pulled.
pub fn home<'a>(routes: &Routes, ours: Option<&'a Ours>, image: &ImageName) -> Result<Home<'a>, RouteError> {
    if let Some((ours, name)) = ours.zip(image.path()).filter(|(ours, name)| ours.access.is_hosted(name)) {
        return Ok(Home::Ours(ours, name));
    }
    let ns = image.registry.as_ref().map(|registry| registry.as_str());
    let repository = routes.route(&image.name, ns)?.repository;
    let by_default = routes.is_default(&repository.registry);
    match ours.filter(|ours| by_default && ours.access.is_hosted(&repository.name)) {
        Some(ours) => Ok(Home::Ours(ours, repository.name)),
        None => Ok(Home::Mirrored(repository)),
    }
}

/// Whether a client that asks for `repository` would be given what its registry has.
pub fn is_mirrored(routes: &Routes, ours: Option<&Ours>, repository: &Repository) -> bool {
    let Repository { registry, name } = repository.clone();
    let image = ImageName { registry: Some(registry), name, tag: None, digest: None };
    matches!(home(routes, ours, &image), Ok(Home::Mirrored(at)) if at == *repository)
}
