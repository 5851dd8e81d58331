//! Who may change things through the operator's address, over HTTP. The rules themselves are tested beside them.

use crate::support::client::{Answer, Call, get};
use crate::support::hub::Hub;
use crate::support::larder::Larder;

const TOKEN: &str = "0123456789abcdef-of-the-operator";

/// Something that nobody can do: who gets as far as 405 has been let in.
async fn change(larder: &Larder, headers: &[(&str, &str)]) -> Answer {
    let mut call = Call::new("POST", "/api/status");
    for (name, value) in headers {
        call = call.header(name, value);
    }
    call.send(larder.admin()).await
}

#[tokio::test]
async fn without_a_token_this_machine_may_and_no_page_of_a_browser() {
    let hub = Hub::plain().await;
    let larder = Larder::mirroring(&hub).await;
    let mark = ("X-Larder-Request", "1");
    assert_eq!(change(&larder, &[mark]).await.status, 405);
    assert_eq!(change(&larder, &[("Content-Type", "application/json")]).await.status, 405);
    let own = format!("http://{}", larder.admin());
    assert_eq!(change(&larder, &[mark, ("Origin", &own), ("Sec-Fetch-Site", "same-origin")]).await.status, 405);
    for (headers, says) in [
        (&[][..], "X-Larder-Request: 1"),
        (&[("Content-Type", "application/x-www-form-urlencoded")], "X-Larder-Request: 1"),
        (&[mark, ("Origin", "http://evil.example")], "another site"),
        (&[mark, ("Sec-Fetch-Site", "cross-site")], "another site"),
        (&[mark, ("Host", "evil.example"), ("Origin", "http://evil.example")], "token_file"),
        (&[mark, ("X-Forwarded-For", "192.168.1.9")], "token_file"),
    ] {
        let answer = change(&larder, headers).await;
        assert_eq!(answer.status, 403, "{headers:?}");
        assert!(answer.text().contains(says), "{}", answer.text());
    }
    assert_eq!(get(larder.admin(), "/api/status").await.status, 200);
}

#[tokio::test]
async fn with_a_token_nobody_changes_anything_without_it() {
    let hub = Hub::plain().await;
    let mut larder = Larder::mirroring(&hub).await;
    larder.restart_with_token(TOKEN).await;
    let mark = ("X-Larder-Request", "1");
    let right = format!("Bearer {TOKEN}");
    assert_eq!(change(&larder, &[mark, ("Authorization", &right)]).await.status, 405);
    for wrong in [None, Some("Bearer 0123456789abcdef"), Some("Basic eDp5")] {
        let headers: Vec<_> = [mark].into_iter().chain(wrong.map(|shown| ("Authorization", shown))).collect();
        let answer = change(&larder, &headers).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer realm=\"larder\"")));
        assert!(answer.text().contains("token_file") && !answer.text().contains(TOKEN), "{}", answer.text());
    }
    assert_eq!(change(&larder, &[("Authorization", &right)]).await.status, 403);
    assert_eq!(change(&larder, &[mark, ("Authorization", &right), ("Origin", "null")]).await.status, 403);
    assert_eq!(get(larder.admin(), "/metrics").await.status, 200, "reading needs none");
}
