//! What a configuration passes through, for who writes random ones. Reads no file that it names.

use std::io::Write;

use tempfile::NamedTempFile;

use super::checks;
use super::document::Document;
use super::schema::Config;

/// A configuration file: refused, or written out as one that means the same.
pub fn file(text: &str) {
    let Some(config) = read(text) else { return };
    let written = config.to_toml_masked();
    assert_eq!(read(&written).as_ref(), Some(&config), "{written}");
}

fn read(text: &str) -> Option<Config> {
    let mut file = NamedTempFile::new().ok()?;
    file.write_all(text.as_bytes()).ok()?;
    let mut document = Document::read(Some(file.path())).ok()?;
    document.settle_default_upstream();
    document.settle_urls();
    let config = document.typed().ok()?;
    checks::check(&config, &document).ok().map(|()| config)
}
