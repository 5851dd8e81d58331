//! Settings that choose one of a few words. Never decides what a word does.

use std::fmt;

use super::text::text_value;
use super::values::BaseUrl;

/// How an upstream is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proxy {
    /// As `HTTPS_PROXY` and `NO_PROXY` say.
    Env,
    /// Directly.
    None,
    /// Through this one.
    Url(BaseUrl),
}

impl Proxy {
    fn parse(text: &str) -> Option<Proxy> {
        match text {
            "env" => Some(Proxy::Env),
            "none" => Some(Proxy::None),
            url => BaseUrl::parse(url).map(Proxy::Url),
        }
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Proxy::Env => f.write_str("env"),
            Proxy::None => f.write_str("none"),
            Proxy::Url(url) => url.fmt(f),
        }
    }
}

text_value!(Proxy, "not a proxy; write env, none, or an address like http://proxy:3128");

/// Makes an enum that is written as one of a few words.
macro_rules! word_value {
    ($(#[$doc:meta])* $type:ident, $wanted:literal, $($(#[$word_doc:meta])* $variant:ident = $word:literal),+) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $type {
            $($(#[$word_doc])* $variant),+
        }

        impl $type {
            fn parse(text: &str) -> Option<$type> {
                match text {
                    $($word => Some($type::$variant),)+
                    _ => None,
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $($type::$variant => $word),+
                })
            }
        }

        text_value!($type, $wanted);
    };
}

word_value!(
    /// What someone without an account may do in the private registry where a rule says `*`.
    Anonymous, "must be none, pull or push",
    /// Nothing.
    None = "none",
    /// Pull.
    Pull = "pull",
    /// Pull and push, and delete where a rule's `delete` says `*`.
    Push = "push"
);

word_value!(
    /// What becomes of an image we hold when its upstream says that it is gone.
    OnDeleted, "must be keep or drop",
    /// It stays.
    Keep = "keep",
    /// It goes too.
    Drop = "drop"
);
