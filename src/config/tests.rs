//! The configuration as a whole: what is accepted, what is refused and in which words, what is written out again.

use std::fs;

use tempfile::TempDir;

use super::spot::Spot;
use super::*;

/// The full configuration of the contract, with a password file that is there.
const CONTRACT: &str = r#"
data_dir = "/var/lib/larder"

[mirror]
listen = "0.0.0.0:5000"
tls = { cert = "/tls/cert.pem", key = "/tls/key.pem", client_ca = "/tls/clients.pem" }

[registry]
listen = "0.0.0.0:5001"
tls = { cert = "/tls/cert.pem", key = "/tls/key.pem", client_ca = "/tls/clients.pem" }
public_url = "https://registry.example.org"
htpasswd = "/etc/larder/htpasswd"
anonymous = "none"

[[registry.repository]]
pattern = "golden/**"
immutable_tags = ["v*"]
pull = ["*"]
push = ["release-bot"]
delete = []
mirror = true

[admin]
listen = "127.0.0.1:5080"
token_file = "TOKEN_FILE"

[cache]
max_size = "50GiB"
min_free = "2GiB"
tag_ttl = "5m"
revalidate_timeout = "1s"
negative_ttl = "30s"
complete_indexes = true
verify = "1h"
scrub = "7d"
scrub_rate = "32MiB/s"
pin = ["library/alpine:*"]

[[upstream]]
name = "index.docker.io"
url = "https://registry-1.docker.io"
fallback = ["https://mirror.gcr.io"]
username = "me"
password_file = "PASSWORD_FILE"
credentials = [{ username = "we", password_file = "PASSWORD_FILE" }]
allow = ["**"]
deny = []
default = true
ca = "/tls/ca.pem"
connect_timeout = "5s"
header_timeout = "10s"
stall_timeout = "30s"
max_connections = 16
parallel = 4
bandwidth = "50MiB/s"
proxy = "env"
private = []
reserve = 10
on_deleted = "keep"
"#;

struct Files(TempDir);

impl Files {
    fn new() -> Files {
        Files(TempDir::new().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Loads `text` as `larder.toml`; an error comes without the directory's name.
    fn load(&self, text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let path = self.write("larder.toml", text);
        let environment = environment.iter().map(|(name, text)| (name.to_string(), text.to_string()));
        let directory = format!("{}/", self.0.path().display());
        Config::load(Some(path.as_ref()), environment).map_err(|error| error.to_string().replace(&directory, ""))
    }

    fn contract(&self) -> String {
        let token = self.write("token", "hunter2-0123456789\n");
        CONTRACT.replace("PASSWORD_FILE", &self.write("password", "hunter2\n")).replace("TOKEN_FILE", &token)
    }
}

fn refusal(text: &str, environment: &[(&str, &str)]) -> String {
    Files::new().load(text, environment).expect_err(text)
}

#[test]
fn without_a_file_it_is_a_mirror_of_docker_hub_on_this_machine() {
    let config = Config::load(None, std::iter::empty()).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.data_dir.as_path(), Path::new("./larder-data"));
    assert_eq!(config.mirror.listen.addr().to_string(), "127.0.0.1:5000");
    assert_eq!(config.admin.listen.addr().to_string(), "127.0.0.1:5080");
    assert!(config.registry.is_none());
    let [hub] = config.upstreams.as_slice() else { panic!("one upstream") };
    assert_eq!((hub.name.to_string().as_str(), hub.default), ("docker.io", true));
    assert_eq!(hub.url.as_str(), "https://registry-1.docker.io");
}

#[test]
fn the_whole_contract_is_accepted_and_written_out_the_same() {
    let files = Files::new();
    let config = files.load(&files.contract(), &[]).unwrap();
    assert_eq!(config.upstreams[0].name.to_string(), "docker.io");
    assert_eq!(config.upstreams[0].password.as_ref().unwrap().expose(), "hunter2");
    assert_eq!(config.upstreams[0].max_connections.get(), 16);
    let accounts: Vec<_> = config.upstreams[0].accounts().map(|(name, word)| (name.as_str(), word.expose())).collect();
    assert_eq!(accounts, [("me", "hunter2"), ("we", "hunter2")]);
    let written = config.to_toml_masked();
    assert_eq!(config.admin.token.as_ref().unwrap().expose(), "hunter2-0123456789");
    assert!(!written.contains("hunter2") && written.contains("password = \"***\""), "{written}");
    assert!(written.contains("# admin: token = \"***\"\n"), "{written}");
    assert!(!format!("{config:?}").contains("hunter2"));
    assert_eq!(files.load(&written, &[]).unwrap(), config);
    let defaults = Config::default();
    assert_eq!(files.load(&defaults.to_toml_masked(), &[]).unwrap(), defaults);
}

#[test]
fn the_list_of_keys_is_the_shape() {
    let files = Files::new();
    let everything = as_toml(&files.load(&files.contract(), &[]).unwrap());
    let mut shape: Vec<_> = Spot::top(&everything).settings().iter().map(Spot::key).collect();
    let mut listed: Vec<_> = keys().map(str::to_owned).collect();
    shape.sort();
    listed.sort();
    assert_eq!(shape, listed);
}

#[test]
fn the_environment_goes_before_the_file() {
    let files = Files::new();
    let file = "[mirror]\nlisten = \"127.0.0.1:1\"\n[[upstream]]\nname = \"ghcr.io\"\n[[upstream]]\n";
    let environment = [
        ("LARDER_MIRROR_LISTEN", "0.0.0.0:2"),
        ("LARDER_DATA_DIR", "/data"),
        ("LARDER_CACHE_TAG_TTL", "1h"),
        ("LARDER_CACHE_COMPLETE_INDEXES", "false"),
        ("LARDER_MIRROR_TLS_CERT", "/cert"),
        ("LARDER_MIRROR_TLS_KEY", "/key"),
        ("LARDER_UPSTREAM_URL", "http://127.0.0.1:3"),
        ("LARDER_UPSTREAM_MAX_CONNECTIONS", "7"),
        ("LARDER_UPSTREAM_USERNAME", "me"),
        ("LARDER_UPSTREAM_PASSWORD", "hunter2"),
        ("LARDER_UPSTREAM_CA", ""),
        ("HOME", "/root"),
    ];
    let config = files.load(file, &environment).unwrap();
    assert_eq!(config.mirror.listen.addr().to_string(), "0.0.0.0:2");
    assert_eq!(config.mirror.tls.as_ref().unwrap().key.as_path(), Path::new("/key"));
    assert_eq!(config.data_dir.as_path(), Path::new("/data"));
    assert_eq!(config.cache.tag_ttl.get().as_secs(), 3600);
    assert!(!config.cache.complete_indexes);
    let [ghcr, hub] = config.upstreams.as_slice() else { panic!("two upstreams") };
    assert_eq!((ghcr.url.as_str(), ghcr.default), ("https://ghcr.io", false));
    assert_eq!((hub.url.as_str(), hub.default), ("http://127.0.0.1:3", true));
    assert_eq!((hub.max_connections.get(), hub.ca.is_none()), (7, true));
    assert_eq!(hub.password.as_ref().unwrap().expose(), "hunter2");
    assert_eq!(files.load(&config.to_toml_masked(), &environment).unwrap(), config);
}

#[test]
fn another_name_from_the_environment_alone_brings_its_own_address() {
    let config = Files::new().load("", &[("LARDER_UPSTREAM_NAME", "registry.lan:5000")]).unwrap();
    assert_eq!(config.upstreams[0].url.as_str(), "https://registry.lan:5000");
}

#[test]
fn variables_that_are_not_settings_are_left_alone() {
    let environment = [
        ("LARDER_LOG", "debug"),
        ("LARDER_CONFIG", "x"),
        ("LARDER_SKIP_CLIENTS", "1"),
        ("LARDER_PORT", "tcp://10.0.0.1:5000"),
        ("LARDER_PORT_5000_TCP_ADDR", "10.0.0.1"),
        ("LARDER_ADMIN_SERVICE_HOST", "10.0.0.1"),
    ];
    assert_eq!(Files::new().load("", &environment).unwrap(), Config::default());
}

/// What is written, and what the user reads.
const REFUSALS: &[(&str, &str)] = &[
    (
        "[cache]\ntag_ttl = \"5 parsecs\"",
        "larder.toml: cache.tag_ttl = \"5 parsecs\": not a duration; write it like 30s, 5m or 1h",
    ),
    ("[cache]\ntag_ttl = 5", "larder.toml: cache.tag_ttl = 5: not a duration; write it like 30s, 5m or 1h"),
    ("[cache]\ntagttl = \"5m\"", "larder.toml: cache.tagttl: no such key; did you mean cache.tag_ttl?"),
    ("listen = \"x\"", "larder.toml: listen: no such key; did you mean mirror.listen?"),
    ("[mirorr]\nlisten = \"x\"", "larder.toml: mirorr: no such key; did you mean mirror?"),
    ("[cache]\nmax_size = \"0\"", "larder.toml: cache.max_size = \"0\": a cache needs room; write it like 100GiB"),
    ("[cache]\ncomplete_indexes = \"yes\"", "larder.toml: cache.complete_indexes = \"yes\": must be a boolean"),
    ("mirror = \"0.0.0.0:1\"", "larder.toml: mirror = \"0.0.0.0:1\": is a section; write it as [mirror]"),
    (
        "[mirror]\ntls = \"cert.pem\"",
        "larder.toml: mirror.tls = \"cert.pem\": write it as { cert = \"….pem\", key = \"….pem\" }",
    ),
    ("[mirror]\ntls = { cert = \"c\" }", "larder.toml: mirror.tls: needs key as well"),
    (
        "[upstream]\nurl = \"https://a\"",
        "larder.toml: upstream: is a section of which there can be many; write [[upstream]]",
    ),
    (
        "[[upstream]]\nmax_connections = 0",
        "larder.toml: upstream[docker.io].max_connections = 0: must be a whole number from 1 to 4096",
    ),
    (
        "[[upstream]]\nallow = [\"library/*\", \"[\"]",
        "larder.toml: upstream[docker.io].allow[#2] = \"[\": not a pattern; write it like library/*, golden/** or \
             v*, without a / at either end",
    ),
    (
        "[[upstream]]\nusername = \"me\"",
        "larder.toml: upstream[docker.io].username = \"me\": has no password; set password_file, or \
             LARDER_UPSTREAM_PASSWORD for the default upstream",
    ),
    (
        "[[upstream]]\nname = \"ghcr.io\"",
        "larder.toml: upstream: none is the default; set default = true in the one that names without a registry \
             go to (ghcr.io), or list docker.io as well",
    ),
    (
        "[[upstream]]\ndefault = true\n[[upstream]]\nname = \"ghcr.io\"\ndefault = true",
        "larder.toml: upstream: only one can be the default, but docker.io, ghcr.io are",
    ),
    (
        "[[upstream]]\n[[upstream]]\nname = \"index.docker.io\"",
        "larder.toml: upstream[index.docker.io].name = \"index.docker.io\": there is another upstream of this \
             name (docker.io)",
    ),
    ("upstream = []", "larder.toml: upstream: is empty; leave it out to mirror docker.io"),
    (
        "[admin]\nlisten = \"0.0.0.0:5000\"",
        "larder.toml: admin.listen = \"0.0.0.0:5000\": 0.0.0.0:5000 is taken by mirror.listen (127.0.0.1:5000); \
             give each its own port",
    ),
    (
        "[registry]\n[[registry.repository]]\npattern = \"golden/**\"",
        "larder.toml: registry: nobody could use it: set htpasswd, or anonymous = \"pull\" (or \"push\") on \
             purpose",
    ),
    ("[[registry.repository]]\npush = []", "larder.toml: registry.repository[#1]: needs pattern as well"),
    (
        "[[registry.repository]]\npattern = \"golden/**\"\npull = [\"a:b\"]",
        "larder.toml: registry.repository[golden/**].pull[#1] = \"a:b\": not a user's name; it cannot be empty or \
             have a colon in it",
    ),
    (
        "[[upstream]]\ncredentials = [{ username = \"me\" }]",
        "larder.toml: upstream[docker.io].credentials[#1]: needs password_file as well",
    ),
    (
        "[[upstream]]\ncredentials = [{ username = \"me\", password = \"hunter2\" }]",
        "larder.toml: upstream[#1].credentials[#1].password: a password does not belong in this file; use \
             password_file, or LARDER_UPSTREAM_PASSWORD",
    ),
    ("data_dir = ", "larder.toml: line 1, column 12: not TOML: string values must be quoted, expected literal string"),
];

#[test]
fn a_refusal_names_the_place_the_value_and_what_is_allowed() {
    for (text, message) in REFUSALS {
        assert_eq!(refusal(text, &[]), *message);
    }
}

#[test]
fn a_refusal_of_the_environment_names_the_variable() {
    for (variable, text, message) in [
        (
            "LARDER_CACHE_TAG_TTL",
            "5 parsecs",
            "LARDER_CACHE_TAG_TTL = \"5 parsecs\": not a duration; write it like 30s, 5m or 1h",
        ),
        (
            "LARDER_UPSTREAM_RESERVE",
            "some",
            "LARDER_UPSTREAM_RESERVE = \"some\": must be a whole number from 0 to 1000000",
        ),
        ("LARDER_MIROR_LISTEN", "x", "LARDER_MIROR_LISTEN: no such setting; did you mean LARDER_MIRROR_LISTEN?"),
        (
            "LARDER_UPSTREAM_ALLOW",
            "**",
            "LARDER_UPSTREAM_ALLOW: upstream.allow is a list; set it in the configuration file",
        ),
        (
            "LARDER_UPSTREAM_PASSWORD",
            "hunter2",
            "larder.toml: upstream[docker.io].username: missing; LARDER_UPSTREAM_PASSWORD gives a password without a \
             user",
        ),
    ] {
        assert_eq!(refusal("", &[(variable, text)]), message);
    }
}

#[test]
fn no_refusal_shows_a_secret() {
    let files = Files::new();
    let two_lines = files.write("two-lines", "hunter2\nhunter2\n");
    let empty = files.write("empty", "\n");
    let short = files.write("short", "hunter2\n");
    let spaced = files.write("spaced", "hunter2 hunter2 hunter2\n");
    for text in [
        "[[upstream]]\npassword = \"hunter2\"".to_owned(),
        "[[upstream]]\npassword = hunter2".to_owned(),
        "[[upstream]]\nusername = \"me\"\npasword_file = \"hunter2\"".to_owned(),
        "[[upstream]]\nurl = \"https://me:hunter2@a\"".to_owned(),
        "[[upstream]]\nurl = \"me:hunter2@a\"".to_owned(),
        "[[upstream]]\nfallback = [\"https://me:hunter2@a\"]".to_owned(),
        "[[upstream]]\nproxy = \"http://me:hunter2@a\"".to_owned(),
        format!("[[upstream]]\nusername = \"me\"\npassword_file = \"{two_lines}\""),
        format!("[[upstream]]\ncredentials = [{{ username = \"me\", password_file = \"{two_lines}\" }}]"),
        format!("[[upstream]]\nusername = \"me\"\npassword_file = \"{empty}\""),
        format!("[admin]\ntoken_file = \"{short}\""),
        format!("[admin]\ntoken_file = \"{spaced}\""),
        format!("[admin]\ntoken_file = \"{two_lines}\""),
        format!("[admin]\ntoken_file = \"{short}.absent\""),
        "[admin]\ntoken = \"hunter2-0123456789\"".to_owned(),
        format!("[[upstream]]\nusername = \"me\"\npassword_file = \"{empty}.absent\""),
    ] {
        let error = files.load(&text, &[]).expect_err(&text);
        assert!(!error.contains("hunter2"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let error = files.load("", &[("LARDER_UPSTREAM_PASSWRD", "hunter2")]).expect_err("a slip");
    assert!(error.contains("LARDER_UPSTREAM_") && !error.contains("hunter2"), "{error}");
}

#[test]
fn a_refusal_is_one_line_whatever_is_in_the_file() {
    for text in [
        "[cache]\ntag_ttl = \"5\\n\\u001b[2Jparsecs\"",
        "\"a\\n\\u001b[2J\" = 1",
        "[[upstream]]\nname = \"\\u001b\"",
        "[cache]\n\u{7f}",
    ] {
        let error = refusal(text, &[]);
        assert!(!error.contains(char::is_control), "{error:?}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Some("no/such.toml".as_ref()), std::iter::empty()).expect_err("no file").to_string();
    assert!(error.starts_with("no/such.toml: cannot be read: No such file"), "{error}");
}
