//! Where a policy comes from.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A policy as the user names it: `least-connection`, `./mine.wasm`, `native:random`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicySource {
    /// One that comes with sidetrack, as the component embedded in the binary.
    BuiltIn(BuiltIn),
    /// The same compiled natively, without a component in front of it: for measuring what the
    /// component costs.
    Native(BuiltIn),
    /// A component, a core module with embedded type information, or a script.
    File(PathBuf),
}

/// A link of a chain as the user writes it: a policy, and its options in JSON right behind it, as in
/// `hash{"key": "query:room"}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyLink {
    pub source: PolicySource,
    /// JSON text; `{}` when there are none.
    pub options: String,
}

/// A text that names no link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    #[error("{0}")]
    Source(UnknownPolicy),
    #[error("options of `{policy}`: expected JSON, found `{options}`: {error}")]
    Options { policy: String, options: String, error: String },
}

impl PolicyLink {
    /// A policy without options.
    #[must_use]
    pub fn plain(source: PolicySource) -> Self {
        Self { source, options: "{}".to_owned() }
    }
}

impl fmt::Display for PolicyLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, options } = self;
        if options == "{}" { source.fmt(f) } else { write!(f, "{source}{options}") }
    }
}

impl FromStr for PolicyLink {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let (policy, options) = match text.find('{') {
            Some(at) => text.split_at(at),
            None => (text, "{}"),
        };
        let source = policy.trim_end().parse().map_err(LinkError::Source)?;
        serde_json::from_str::<serde::de::IgnoredAny>(options).map_err(|error| LinkError::Options {
            policy: policy.to_owned(),
            options: options.to_owned(),
            error: error.to_string(),
        })?;
        Ok(Self { source, options: options.to_owned() })
    }
}

/// The policies that come with sidetrack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BuiltIn {
    Canary,
    Hash,
    IpHash,
    LeastConnection,
    PowerOfTwo,
    Random,
    RoundRobin,
    StickyCookie,
    TaggedSid,
    Weighted,
}

/// A name that is neither a policy nor a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no policy `{0}`: expected {names} or the path of a .wasm or .js file", names = BuiltIn::names())]
pub struct UnknownPolicy(pub String);

/// What is known of a built-in policy.
struct Facts {
    name: &'static str,
    about: &'static str,
    example: &'static str,
    always_answers: bool,
    wasm: &'static [u8],
}

impl BuiltIn {
    pub const ALL: [Self; 10] = [
        Self::Canary,
        Self::Hash,
        Self::IpHash,
        Self::LeastConnection,
        Self::PowerOfTwo,
        Self::Random,
        Self::RoundRobin,
        Self::StickyCookie,
        Self::TaggedSid,
        Self::Weighted,
    ];

    /// All there is to say about each, but for its native twin.
    const fn facts(self) -> Facts {
        match self {
            Self::Canary => Facts {
                name: "canary",
                about: "a share of what is new to labelled workers",
                example: r#"{"share": 0.05}"#,
                always_answers: false,
                wasm: include_bytes!("../../policies/dist/canary.wasm"),
            },
            Self::Hash => Facts {
                name: "hash",
                about: "a key of the request (a query parameter, cookie, header, path) to one worker each, by rendezvous hashing",
                example: r#"{"key": "query:room"}"#,
                always_answers: false,
                wasm: include_bytes!("../../policies/dist/hash.wasm"),
            },
            Self::IpHash => Facts {
                name: "ip-hash",
                about: "every client address to one worker, by rendezvous hashing",
                example: "{}",
                always_answers: false,
                wasm: include_bytes!("../../policies/dist/ip-hash.wasm"),
            },
            Self::LeastConnection => Facts {
                name: "least-connection",
                about: "the worker with the lowest load; of equals, the next after the last pick",
                example: "{}",
                always_answers: true,
                wasm: include_bytes!("../../policies/dist/least-connection.wasm"),
            },
            Self::PowerOfTwo => Facts {
                name: "power-of-two",
                about: "of two random workers the one with the lower load for its weight",
                example: "{}",
                always_answers: true,
                wasm: include_bytes!("../../policies/dist/power-of-two.wasm"),
            },
            Self::Random => Facts {
                name: "random",
                about: "every worker with the same chance",
                example: "{}",
                always_answers: true,
                wasm: include_bytes!("../../policies/dist/random.wasm"),
            },
            Self::RoundRobin => Facts {
                name: "round-robin",
                about: "every worker in turn, exactly",
                example: "{}",
                always_answers: true,
                wasm: include_bytes!("../../policies/dist/round-robin.wasm"),
            },
            Self::StickyCookie => Facts {
                name: "sticky-cookie",
                about: "a client whose cookie or header names a worker comes back there",
                example: "{}",
                always_answers: false,
                wasm: include_bytes!("../../policies/dist/sticky-cookie.wasm"),
            },
            Self::TaggedSid => Facts {
                name: "tagged-sid",
                about: "a session whose id begins with a worker's name goes there; see --tagged-sids",
                example: "{}",
                always_answers: false,
                wasm: include_bytes!("../../policies/dist/tagged-sid.wasm"),
            },
            Self::Weighted => Facts {
                name: "weighted",
                about: "every worker in turn as often as its weight says, smoothly",
                example: "{}",
                always_answers: true,
                wasm: include_bytes!("../../policies/dist/weighted.wasm"),
            },
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// What it does, in one line.
    #[must_use]
    pub const fn about(self) -> &'static str {
        self.facts().about
    }

    /// Options to try it with: those that it cannot do without.
    #[must_use]
    pub const fn example(self) -> &'static str {
        self.facts().example
    }

    /// The embedded artefact: a core module with the contract's type information.
    #[must_use]
    pub const fn wasm(self) -> &'static [u8] {
        self.facts().wasm
    }

    /// Whether it answers whenever there is a worker that takes new connections, and so may be the
    /// last of a chain.
    #[must_use]
    pub const fn always_answers(self) -> bool {
        self.facts().always_answers
    }

    /// Whether its decisions depend on the request: those that do have nothing to say to some.
    #[must_use]
    pub const fn reads_request(self) -> bool {
        !self.always_answers()
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }
}

impl fmt::Display for BuiltIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PolicySource {
    /// What to call the policy in logs: a script by its file's whole name, as its errors do.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::BuiltIn(known) | Self::Native(known) => known.name().to_owned(),
            Self::File(path) => {
                let name = if self.is_script() { path.file_name() } else { path.file_stem() };
                name.unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
            }
        }
    }

    /// Whether it is a JavaScript file, which the engine in `policies/script` runs.
    #[must_use]
    pub fn is_script(&self) -> bool {
        match self {
            Self::File(path) => {
                path.extension().is_some_and(|extension| extension == "js" || extension == "mjs")
            }
            Self::BuiltIn(_) | Self::Native(_) => false,
        }
    }
}

impl fmt::Display for PolicySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn(known) => known.fmt(f),
            Self::Native(known) => write!(f, "native:{known}"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl FromStr for PolicySource {
    type Err = UnknownPolicy;

    /// A known name wins over a file of that name. A name that looks like a path is taken for one
    /// even when nothing is there yet; whether it can be read shows when it is loaded.
    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        let unknown = || UnknownPolicy(text.to_owned());
        if let Some(name) = text.strip_prefix("native:") {
            return BuiltIn::named(name).map(Self::Native).ok_or_else(unknown);
        }
        if let Some(known) = BuiltIn::named(text) {
            return Ok(Self::BuiltIn(known));
        }
        let path = Path::new(text);
        let looks_like_path = text.contains('/') || path.extension().is_some() || path.is_file();
        if looks_like_path { Ok(Self::File(path.to_owned())) } else { Err(unknown()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_are_told_apart() {
        let parse = |text: &str| text.parse::<PolicySource>();
        for known in BuiltIn::ALL {
            assert_eq!(parse(known.name()), Ok(PolicySource::BuiltIn(known)));
            assert_eq!(parse(&format!("native:{known}")), Ok(PolicySource::Native(known)));
        }
        for path in ["./mine", "mine.wasm", "/etc/policy.wasm"] {
            assert_eq!(parse(path), Ok(PolicySource::File(path.into())));
        }
        for unknown in ["roundrobin", "native:mine", "native:", ""] {
            let error = parse(unknown).expect_err(unknown).to_string();
            assert!(error.contains("least-connection, power-of-two, random, round-robin"), "{error}");
        }
    }

    #[test]
    fn scripts_are_known_by_their_extension() {
        let source = |text: &str| text.parse::<PolicySource>().unwrap();
        for (text, name) in [("./mine.js", "mine.js"), ("a.b/my.policy.mjs", "my.policy.mjs")] {
            assert!(source(text).is_script(), "{text}");
            assert_eq!(source(text).name(), name);
        }
        for text in ["./mine.wasm", "./js", "mine.js/policy.wasm", "random", "native:random"] {
            assert!(!source(text).is_script(), "{text}");
        }
        assert_eq!(source("./mine.wasm").name(), "mine");
    }

    #[test]
    fn options_stand_behind_the_policy() {
        let parse = |text: &str| text.parse::<PolicyLink>();
        let link = parse(r#"./hash.wasm{"key": "query:room"}"#).unwrap();
        assert_eq!(link.source, PolicySource::File("./hash.wasm".into()));
        assert_eq!(link.options, r#"{"key": "query:room"}"#);
        assert_eq!(link.to_string(), r#"./hash.wasm{"key": "query:room"}"#);
        assert_eq!(parse("random"), Ok(PolicyLink::plain(PolicySource::BuiltIn(BuiltIn::Random))));
        let error = parse("random{key: 1}").unwrap_err().to_string();
        assert!(error.contains("options of `random`: expected JSON, found `{key: 1}`"), "{error}");
        assert!(parse("nobody{}").unwrap_err().to_string().contains("no policy `nobody`"));
    }

    #[test]
    fn display_reads_back() {
        for text in ["random", "native:round-robin", "dir/mine.wasm"] {
            assert_eq!(text.parse::<PolicySource>().map(|source| source.to_string()), Ok(text.to_owned()));
        }
    }
}
