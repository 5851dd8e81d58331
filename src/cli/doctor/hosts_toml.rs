//! `hosts.toml` as containerd reads it, and Docker with containerd's image store: which hosts stand for a registry.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::facts::{ConfigFile, Host, Hosts, Passport};
use crate::cli::mirror_url::MirrorUrl;

/// What is needed of each host for a pull.
const NEEDED: [&str; 2] = ["pull", "resolve"];

/// Reads one.
pub(super) fn read(path: &Path) -> ConfigFile<Hosts> {
    match fs::read_to_string(path) {
        Ok(text) => match parse(&text, path) {
            Ok(hosts) => ConfigFile::Says(hosts),
            Err(reason) => ConfigFile::Broken(reason),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => ConfigFile::Missing,
        Err(error) => ConfigFile::Broken(error.to_string()),
    }
}

impl Hosts {
    /// The certificates that are shown to the mirror.
    pub(super) fn passports(&self, mirror: &MirrorUrl) -> Vec<Passport> {
        let ours = self.hosts.iter().filter(|host| mirror.is_named_by(&host.url));
        let pairs = ours.flat_map(|host| host.client.clone());
        pairs.map(|(cert, key)| Passport { cert, key, lets_in: false }).collect()
    }
}

fn parse(text: &str, path: &Path) -> Result<Hosts, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let hosts = table.get("host").and_then(toml::Value::as_table).into_iter().flatten();
    let hosts = hosts.map(|(url, host)| Host {
        url: url.clone(),
        // Without the key a host may do everything.
        serves_pulls: host.get("capabilities").and_then(toml::Value::as_array).is_none_or(|capabilities| {
            NEEDED.iter().all(|needed| capabilities.iter().any(|one| one.as_str() == Some(needed)))
        }),
        skip_verify: host.get("skip_verify").and_then(toml::Value::as_bool).unwrap_or(false),
        ca: certificates(host.get("ca"), folder),
        client: pairs(host.get("client"), folder),
    });
    Ok(Hosts { path: path.to_owned(), hosts: hosts.collect() })
}

/// A path or several; a relative one counts from the file.
fn certificates(value: Option<&toml::Value>, folder: &Path) -> Vec<PathBuf> {
    let several = value.and_then(toml::Value::as_array).into_iter().flatten();
    value.into_iter().chain(several).filter_map(toml::Value::as_str).map(|path| folder.join(path)).collect()
}

/// `[["cert", "key"], …]`, or a path or several to files that hold both.
fn pairs(value: Option<&toml::Value>, folder: &Path) -> Vec<(PathBuf, PathBuf)> {
    let both = certificates(value, folder).into_iter().map(|path| (path.clone(), path));
    let apart = value.and_then(toml::Value::as_array).into_iter().flatten().filter_map(toml::Value::as_array);
    let apart =
        apart.filter_map(|pair| Some((folder.join(pair.first()?.as_str()?), folder.join(pair.get(1)?.as_str()?))));
    both.chain(apart).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_what_containerd_gives_them() {
        let text = "server = \"https://registry-1.docker.io\"\n\
                    [host.\"http://a:5000\"]\ncapabilities = [\"pull\", \"resolve\"]\nca = \"ca.pem\"\n\
                    [host.\"https://b\"]\ncapabilities = [\"pull\"]\nskip_verify = true\nca = [\"/x.pem\", \"y.pem\"]\n\
                    [host.\"https://c\"]\nclient = [[\"c.cert\", \"/k/c.key\"]]\n\
                    [host.\"https://d\"]\nclient = \"both.pem\"\n";
        let hosts = parse(text, Path::new("/etc/d/docker.io/hosts.toml")).unwrap().hosts;
        let host = |url: &str| hosts.iter().find(|host| host.url == url).unwrap();
        assert!(
            host("http://a:5000").serves_pulls && !host("https://b").serves_pulls && host("https://c").serves_pulls
        );
        assert_eq!(host("http://a:5000").ca, [Path::new("/etc/d/docker.io/ca.pem")]);
        assert_eq!(host("https://b").ca, [Path::new("/x.pem"), Path::new("/etc/d/docker.io/y.pem")]);
        assert_eq!(host("https://c").client, [("/etc/d/docker.io/c.cert".into(), "/k/c.key".into())]);
        let both = Path::new("/etc/d/docker.io/both.pem").to_owned();
        assert_eq!(host("https://d").client, [(both.clone(), both)]);
        assert!(host("https://b").skip_verify && !host("https://c").skip_verify);
        assert!(parse("host = [", Path::new("x")).is_err());
        assert_eq!(read(Path::new("/nowhere/hosts.toml")), ConfigFile::Missing);
    }
}
