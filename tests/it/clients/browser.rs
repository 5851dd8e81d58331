//! Debian's Chromium, headless, on the operator's page: what it has made of the page is read as its DOM, and looked at.
//!
//! Where the server has not got what a test needs, or no name could be so bad, a `Front` answers in its place.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::process::{Program, run, wanted};
use super::scratch::Scratch;
use crate::stale::until_out_of_order;
use crate::support::client::get;
use crate::support::hub::Hub;
use crate::support::image::Image;
use crate::support::larder::Larder;

const CHROMIUM: Program = Program::new("chromium", "chromium");

/// A tag is asked about again after five minutes.
const EXPIRED: Duration = Duration::from_secs(301);

/// A name that is markup, as no registry's can be: what would become of it is seen in the title.
const HOSTILE: &str = "<img src=x onerror=\"document.title='broken'\">";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_shows_the_image_the_hit_ratio_and_how_the_upstream_is() {
    if !wanted(&[CHROMIUM]) {
        return;
    }
    let hub = Hub::plain().await;
    let image = Image::small(1);
    hub.push("library/alpha", "latest", &image);
    let larder = Larder::mirroring(&hub).await;
    for _ in 0..4 {
        assert_eq!(larder.get("/v2/library/alpha/manifests/latest").await.status, 200);
    }
    let listed = async {
        // The index is told of what is on disk in its own time.
        while get(larder.admin(), "/api/images").await.json()[0]["tags"][0] != "latest" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), listed).await.expect("the image is listed");
    let dom = dom(format!("http://{}/", larder.admin())).await;
    assert!(dom.contains("docker.io/library/alpha: latest") && dom.contains(">Remove<"), "the image: {dom}");
    assert!(dom.contains("● live"), "{dom}");
    assert!(dom.contains(">75.0 %<"), "one miss and three hits: {dom}");
    assert!(dom.contains(&format!("docker.io/library/alpha@{}", image.digest())), "the pull that counted: {dom}");
    assert!(dom.contains("● up") && !dom.contains("out of order"), "{dom}");
    assert!(dom.contains(&format!("http://{}", larder.mirror())) && dom.contains("registry-mirrors"), "{dom}");

    an_outage(&hub, &larder, &image).await;
    let outage = self::dom(format!("http://{}/", larder.admin())).await;
    assert!(outage.contains("○ out of order") && outage.contains("● live"), "{outage}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_says_stays_text() {
    if !wanted(&[CHROMIUM]) {
        return;
    }
    let front = Front::before(&Larder::mirroring(&Hub::plain().await).await, "").await;
    let dom = dom(front.url("/")).await;
    let text = HOSTILE.replace('<', "&lt;").replace('>', "&gt;");
    assert!(dom.matches(&text).count() >= 3, "as an image, an error, a client: {dom}");
    assert!(!dom.contains("<img") && dom.contains("<title>Larder</title>"), "{dom}");
    assert!(dom.contains("linux/arm64") && dom.contains("12 MiB"), "{dom}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pin_is_asked_about_and_sent_with_the_token_and_the_mark() {
    if !wanted(&[CHROMIUM]) {
        return;
    }
    let larder = Larder::mirroring(&Hub::plain().await).await;
    let front = Front::before(&larder, &press("Pin", "a-token", "no")).await;
    dom(front.url("/")).await;
    assert_eq!(front.changes(), Vec::<String>::new(), "it was not confirmed");
    let front = Front::before(&larder, &press("Pin", "a-token", "yes")).await;
    let dom = dom(front.url("/")).await;
    let changes = front.changes();
    assert_eq!(changes.len(), 2, "one for each tag: {changes:?}");
    for said in ["POST /api/pins ", "x-larder-request: 1", "authorization: Bearer a-token", "application/json"] {
        assert!(changes[0].contains(said), "{said}: {}", changes[0]);
    }
    assert!(changes[0].ends_with("{\"pattern\":\"docker.io/library/alpine:3.20\"}"), "{}", changes[0]);
    assert!(dom.contains("Done: pin."), "{dom}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_pinned_unpinned_and_removed_by_who_confirms_it_and_has_the_token() {
    const TOKEN: &str = "0123456789abcdef-of-the-operator";
    if !wanted(&[CHROMIUM]) {
        return;
    }
    let hub = Hub::plain().await;
    hub.push("library/alpha", "latest", &Image::small(1));
    let mut larder = Larder::mirroring(&hub).await;
    larder.restart_with_token(TOKEN).await;
    larder.get("/v2/library/alpha/manifests/latest").await;
    let shows = |wanted: Option<bool>| {
        let admin = larder.admin();
        async move {
            // The index is told of what is on disk in its own time.
            let told = async {
                while get(admin, "/api/images").await.json()[0]["pinned"].as_bool() != wanted {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(30), told).await.unwrap_or_else(|_| panic!("not {wanted:?}"));
        }
    };
    shows(Some(false)).await;
    for (word, token, answer, says, then) in [
        ("Remove", "another-token-than-that", "yes", "the token is not the one", Some(false)),
        ("Remove", "", "yes", "this needs the token", Some(false)),
        ("Remove", TOKEN, "no", "alpha: latest", Some(false)),
        ("Pin", TOKEN, "yes", "Done: pin.", Some(true)),
        ("Unpin", TOKEN, "no", ">Unpin<", Some(true)),
        ("Unpin", TOKEN, "yes", "Done: unpin.", Some(false)),
        ("Remove", TOKEN, "yes", "Done: remove.", None),
    ] {
        let dom = dom(Front::of(&larder, &press(word, token, answer)).await.url("/")).await;
        assert!(dom.contains(says), "{word} {answer}: {dom}");
        assert_eq!(dom.contains("docker.io/library/alpha: latest"), then.is_some(), "{word} {answer}: {dom}");
        shows(then).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_whose_server_is_gone_keeps_what_it_shows_and_says_so() {
    if !wanted(&[CHROMIUM]) {
        return;
    }
    let gone = "const wait = setInterval(() => { if (!document.getElementById('live').textContent.includes('live')) return;\
                clearInterval(wait); window.fetch = () => Promise.reject(new TypeError('gone')); }, 50);";
    let front = Front::before(&Larder::mirroring(&Hub::plain().await).await, gone).await;
    let dom = dom(front.url("/")).await;
    assert!(dom.contains("○ the server does not answer; what is shown is of "), "{dom}");
    assert!(!dom.contains("● live") && dom.contains("● up") && dom.contains("linux/arm64"), "{dom}");
}

/// For people: `LARDER_SCREENSHOTS=DIR` keeps the pictures. That there are four, and that none is empty, is tested.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_can_be_looked_at_on_a_desk_and_on_a_phone_by_day_and_by_night() {
    if !wanted(&[CHROMIUM]) {
        return;
    }
    let hub = Hub::plain().await;
    let image = Image::small(1);
    hub.push("library/alpha", "latest", &image);
    let larder = Larder::mirroring(&hub).await;
    for _ in 0..4 {
        larder.get("/v2/library/alpha/manifests/latest").await;
    }
    an_outage(&hub, &larder, &image).await;
    let front = Front::before(&larder, "").await;
    let kept = std::env::var_os("LARDER_SCREENSHOTS");
    let home = Scratch::new("screenshots");
    let home = kept.as_ref().map_or(home.path(), Path::new);
    for (theme, preferred) in [("light", 1), ("dark", 0)] {
        for (device, path, size) in [("desk", "/", "1280,1600"), ("phone", "/phone", "500,3000")] {
            let picture = home.join(format!("{theme}-{device}.png"));
            let (shot, url) = (format!("--screenshot={}", picture.display()), front.url(path));
            let scheme = format!("--blink-settings=preferredColorScheme={preferred}");
            chromium(vec![shot, format!("--window-size={size}"), scheme, "--hide-scrollbars".to_owned(), url]).await;
            let picture = fs::read(picture).unwrap();
            assert!(picture.starts_with(b"\x89PNG") && picture.len() > 20_000, "{theme} {device}: {}", picture.len());
        }
    }
}

/// A script that presses the first button of this word in the list, and answers the question that comes.
fn press(word: &str, token: &str, answer: &str) -> String {
    format!(
        "const wait = setInterval(() => {{ const button = [...document.querySelectorAll('#images button')]\
         .find((one) => one.textContent === '{word}'); if (!button) return; clearInterval(wait);\
         document.getElementById('token').value = '{token}'; button.click();\
         document.querySelector('#confirm button[value={answer}]').click(); }}, 50);"
    )
}

/// An image that is whole is served in an outage, and says of what: so all of it is here before.
async fn an_outage(hub: &Hub, larder: &Larder, image: &Image) {
    for digest in image.blob_digests() {
        assert!(larder.get(&format!("/v2/library/alpha/blobs/{digest}")).await.complete);
    }
    larder.clock.advance(EXPIRED);
    hub.stop().await;
    until_out_of_order(larder, "/v2/library/alpha/manifests/latest").await;
}

async fn dom(url: String) -> String {
    chromium(vec!["--dump-dom".to_owned(), url]).await
}

/// Runs beside the test, whose runtime serves what the browser asks for. The time is the browser's own: it passes when
/// nothing is under way.
async fn chromium(arguments: Vec<String>) -> String {
    let work = move || {
        let home = Scratch::new("chromium");
        let mut command = CHROMIUM.command(home.path());
        command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--virtual-time-budget=5000"]);
        command.arg(format!("--user-data-dir={}", home.join("profile").display())).args(arguments);
        run(&mut command)
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// A path, the head and the body.
type Page = (String, String, String);

/// Answers like the operator's address of a server, and makes up what is not there.
struct Front {
    address: SocketAddr,
    changes: Arc<Mutex<Vec<String>>>,
}

impl Front {
    /// `script` runs in the page beside its own.
    async fn before(larder: &Larder, script: &str) -> Front {
        let mut pages = Vec::new();
        for path in ["/api/status", "/api/budget"] {
            pages.push(Front::page(larder, path).await);
        }
        let json = "Content-Type: application/json\r\n";
        pages.push(("/api/images".to_owned(), json.to_owned(), images()));
        pages.push(("/api/activity".to_owned(), json.to_owned(), activity()));
        let frame =
            "<!doctype html><body style=\"margin:0\"><iframe src=\"/\" width=390 height=3000 style=\"border:0\">";
        pages.push(("/phone".to_owned(), "Content-Type: text/html\r\n".to_owned(), frame.to_owned()));
        Front::with(larder, script, pages, None).await
    }

    /// Makes nothing up: what the page asks for, its server is asked.
    async fn of(larder: &Larder, script: &str) -> Front {
        Front::with(larder, script, Vec::new(), Some(larder.admin())).await
    }

    async fn page(larder: &Larder, path: &str) -> Page {
        let answer = get(larder.admin(), path).await;
        let header = |name: &str| answer.header(name).unwrap_or("default-src 'none'").to_owned();
        let head = format!(
            "Content-Type: {}\r\nContent-Security-Policy: {}\r\n",
            header("content-type"),
            // `/phone` has the page in a frame: no window of Chromium's is as narrow as a phone.
            header("content-security-policy").replace("frame-ancestors 'none'", "frame-ancestors 'self'")
        );
        let text = answer.text().replace("</head>", "<script src=\"/driver.js\" defer></script></head>");
        (path.to_owned(), head, text)
    }

    async fn with(larder: &Larder, script: &str, mut pages: Vec<Page>, server: Option<SocketAddr>) -> Front {
        for path in ["/", "/page.css", "/page.js"] {
            pages.push(Front::page(larder, path).await);
        }
        pages.push(("/driver.js".to_owned(), "Content-Type: text/javascript\r\n".to_owned(), script.to_owned()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, changes) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let noted = changes.clone();
        std::thread::spawn(move || {
            let (pages, noted) = (Arc::new(pages), noted);
            for stream in listener.incoming().map_while(Result::ok) {
                let (pages, noted) = (pages.clone(), noted.clone());
                // A browser opens connections ahead of time: none may hold up the others.
                std::thread::spawn(move || serve(&stream, &pages, server, &noted));
            }
        });
        Front { address, changes }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn changes(&self) -> Vec<String> {
        self.changes.lock().unwrap().clone()
    }
}

fn serve(mut stream: &TcpStream, pages: &[Page], server: Option<SocketAddr>, noted: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let from = head.len();
        if !matches!(reader.read_line(&mut head), Ok(1..)) {
            return;
        }
        let line = head[from..].trim_end();
        if let Some((_, value)) = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            length = value.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let path = head.split([' ', '?']).nth(1).unwrap_or_default();
    let page = pages.iter().find(|(at, ..)| head.starts_with("GET ") && at == path);
    if let Some(server) = server.filter(|_| page.is_none()) {
        let mut server = TcpStream::connect(server).unwrap();
        let head = head.trim_end().replace("Connection: keep-alive", "Connection: close");
        server.write_all(&[head.as_bytes(), b"\r\n\r\n", &body].concat()).unwrap();
        // The browser may have gone meanwhile.
        let _ = std::io::copy(&mut server, &mut stream);
        return;
    }
    let answer = if head.starts_with("GET ") {
        page.map(|(_, head, text)| (head.as_str(), text.as_str()))
    } else {
        let (line, headers) = head.split_once("\r\n").unwrap();
        let headers: Vec<String> = headers
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| format!("{}: {value}", name.to_ascii_lowercase()))
            .collect();
        noted.lock().unwrap().push(format!("{line}\n{}\n{}", headers.join("\n"), String::from_utf8(body).unwrap()));
        Some(("Content-Type: text/plain\r\n", "{}"))
    };
    let (status, (head, text)) = answer.map_or((404, ("", "")), |answer| (200, answer));
    let length = text.len();
    // The browser may have gone meanwhile.
    let _ = write!(stream, "HTTP/1.1 {status} x\r\n{head}Content-Length: {length}\r\nConnection: close\r\n\r\n{text}");
}

fn images() -> String {
    let digest = format!("sha256:{}", "ab".repeat(32));
    serde_json::json!([
        {"image": "docker.io/library/alpine", "tags": ["3.20", "latest"], "digest": digest, "platforms": ["linux/amd64", "linux/arm64"],
         "bytes": 12 << 20, "shared_bytes": 3 << 20, "last_used": 1_790_000_000, "complete": true, "pinned": false,
         "stale": false, "upstream": "docker.io", "hosted": false},
        {"image": HOSTILE, "tags": [], "digest": digest, "platforms": ["linux/amd64"], "bytes": 5000, "shared_bytes": 0,
         "last_used": 1_790_000_000, "complete": false, "pinned": true, "stale": true, "upstream": "docker.io",
         "hosted": false},
        {"image": "golden/base", "tags": ["v1"], "digest": digest, "platforms": ["linux/amd64"], "bytes": 70 << 20,
         "shared_bytes": 0, "last_used": 1_790_000_000, "complete": true, "pinned": false, "stale": false,
         "upstream": null, "hosted": true},
    ])
    .to_string()
}

fn activity() -> String {
    let reason = "TOOMANYREQUESTS: docker.io is out of order and this image is not here: ask again in 30 s";
    serde_json::json!({
        "days": [{"day": "2026-11-21", "requests": 4, "hits": 3, "bytes": 9_000, "cached_bytes": 7_000},
                 {"day": "2026-11-20", "requests": 40, "hits": 30, "bytes": 9_000_000, "cached_bytes": 7_000_000}],
        "errors": [{"at": 1_790_000_000, "status": 503, "path": "/v2/library/gone/manifests/latest", "reason": reason},
                   {"at": 1_790_000_000, "status": 404, "path": HOSTILE, "reason": HOSTILE}],
        "images": [{"name": "docker.io/library/alpine:latest", "count": 17, "over": 0}],
        "clients": [{"name": "192.168.1.20", "count": 12, "over": 0}, {"name": HOSTILE, "count": 5, "over": 1}],
    })
    .to_string()
}
