//! `sidetrack policy new`: a folder that builds, in the language of choice.
//!
//! The templates are in `sdk/policy/templates`, as they are for a policy called `my-policy`; they are
//! embedded, so nothing is fetched. What every policy shares is added here: the contract, and for Rust
//! the crate it is written with.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::cli::print;

/// What the templates call the policy, and its crate.
const NAME: &str = "my-policy";
const CRATE: &str = "my_policy";
/// Longest name of a policy.
const LONGEST: usize = 64;

/// Where to begin a policy, and in which language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct New {
    /// The folder to make. Its last part is the policy's name.
    pub folder: PathBuf,
    pub language: Language,
}

/// What policies can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    Rust,
    JavaScript,
    Python,
    C,
    /// JavaScript that sidetrack runs as it is.
    Script,
}

/// A file of a template: where it goes, and what it says for a policy of that name.
struct File(&'static str, &'static str);

/// The files of a folder below `sdk/policy`, to be put below another.
macro_rules! files {
    ($from:literal => $to:literal: $($path:literal)*) => {
        &[$(File(concat!($to, $path), include_str!(concat!("../../sdk/policy/", $from, $path)))),*]
    };
}

const RUST: &[File] = files!("templates/rust/" => "":
    ".cargo/config.toml" ".gitignore" "Cargo.lock" "Cargo.toml" "README.md" "sidetrack-policy/Cargo.toml"
    "scenario.toml" "src/lib.rs");
const RUST_SDK: &[File] = files!("src/" => "sidetrack-policy/src/":
    "export.rs" "guest.rs" "host.rs" "lib.rs" "native.rs" "request.rs" "store.rs" "types.rs");
const JAVASCRIPT: &[File] = files!("templates/javascript/" => "":
    ".gitignore" "README.md" "package-lock.json" "package.json" "policy.js" "policy.test.js"
    "scenario.toml" "sidetrack.d.ts" "sidetrack.test-host.js" "wit/world.wit");
const PYTHON: &[File] = files!("templates/python/" => "":
    ".gitignore" "Makefile" "README.md" "policy.py" "requirements.txt" "scenario.toml"
    "test_policy.py" "wit/world.wit");
const C: &[File] = files!("templates/c/" => "":
    ".gitignore" "Makefile" "README.md" "policy.c" "policy_test.c" "scenario.toml" "sidetrack/bindings.c"
    "sidetrack/bindings.h" "sidetrack/common.c" "sidetrack/component.c" "sidetrack/interfaces.h"
    "sidetrack/libc/libc.c" "sidetrack/libc/stdlib.h" "sidetrack/libc/string.h" "sidetrack/native.c"
    "sidetrack/native.h" "sidetrack/sidetrack.h");

const SCRIPT: &[File] = files!("templates/script/" => "": "README.md" "my-policy.js" "scenario.toml");

const CONTRACT: &str = include_str!("../../wit/policy.wit");

impl Language {
    pub const ALL: [Self; 5] = [Self::Rust, Self::JavaScript, Self::Python, Self::C, Self::Script];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::JavaScript => "javascript",
            Self::Python => "python",
            Self::C => "c",
            Self::Script => "script",
        }
    }

    /// The language of that name, or of a usual abbreviation.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "rs" => Some(Self::Rust),
            "js" => Some(Self::JavaScript),
            "py" => Some(Self::Python),
            _ => Self::ALL.into_iter().find(|language| language.name() == name),
        }
    }

    const fn files(self) -> [&'static [File]; 3] {
        match self {
            Self::Rust => [RUST, RUST_SDK, &[File("sidetrack-policy/wit/policy.wit", CONTRACT)]],
            Self::JavaScript => [JAVASCRIPT, &[File("wit/deps/policy.wit", CONTRACT)], &[]],
            Self::Python => [PYTHON, &[File("wit/deps/policy.wit", CONTRACT)], &[]],
            Self::C => [C, &[], &[]],
            Self::Script => [SCRIPT, &[], &[]],
        }
    }

    /// What to edit, when that has to be built.
    const fn source(self) -> Option<&'static str> {
        match self {
            Self::Rust => Some("src/lib.rs"),
            Self::JavaScript => Some("policy.js"),
            Self::Python => Some("policy.py"),
            Self::C => Some("policy.c"),
            Self::Script => None,
        }
    }

    /// The commands that build, and what is said about each.
    const fn commands(self) -> &'static [(&'static str, &'static str)] {
        const TEST: &str = "its unit tests";
        match self {
            Self::Rust => &[
                ("rustup target add wasm32-unknown-unknown", "once"),
                ("cargo build --release", ""),
                ("cargo test", TEST),
            ],
            Self::JavaScript => &[("npm ci", "once"), ("npm run build", ""), ("npm test", TEST)],
            Self::Python => {
                &[("apt-get install make python3-venv", "once"), ("make", ""), ("make test", TEST)]
            }
            Self::C => &[("apt-get install make clang lld", "once"), ("make", ""), ("make test", TEST)],
            Self::Script => &[],
        }
    }

    /// The policy itself: what a build leaves behind, below the policy's folder.
    #[must_use]
    pub fn artefact(self, name: &str) -> PathBuf {
        match self {
            Self::Rust => Path::new("target/wasm32-unknown-unknown/release")
                .join(name.replace('-', "_"))
                .with_extension("wasm"),
            Self::JavaScript | Self::Python | Self::C => Path::new(name).with_extension("wasm"),
            Self::Script => Path::new(name).with_extension("js"),
        }
    }
}

impl New {
    pub(super) fn perform(&self) -> Result<bool, String> {
        let name = self.name()?;
        let made = |error: std::io::Error, path: &Path| format!("cannot make {}: {error}", path.display());
        if fs::read_dir(&self.folder).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(format!(
                "the folder `{}` is not empty: choose another name, or empty it",
                self.folder.display()
            ));
        }
        for File(path, text) in self.language.files().into_iter().flatten() {
            let path = self.folder.join(path.replace(NAME, name));
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).map_err(|error| made(error, folder))?;
            }
            let text = text.replace(NAME, name).replace(CRATE, &name.replace('-', "_"));
            let text = text.replace(&camel(NAME), &camel(name));
            // Never over anything, not even what appeared just now.
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&path)
                .and_then(|mut file| file.write_all(text.as_bytes()))
                .map_err(|error| made(error, &path))?;
        }
        print(&self.next_steps(name));
        Ok(true)
    }

    /// The policy's name: the folder's.
    fn name(&self) -> Result<&str, String> {
        let name = self.folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let problem = if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
            "begin with a lower-case letter"
        } else if !name.chars().all(|one| one.is_ascii_lowercase() || one.is_ascii_digit() || one == '-') {
            "have lower-case letters, digits and dashes only"
        } else if name.ends_with('-') || name.contains("--") {
            "have single dashes, between words"
        } else if name.len() > LONGEST {
            return Err(format!(
                "a policy's name has {LONGEST} characters at most: `{name}` has {}",
                name.len()
            ));
        } else if self.language == Language::Rust && TAKEN.contains(&name) {
            return Err(format!("Rust lets no crate be called `{name}`: choose another name"));
        } else {
            return Ok(name);
        };
        Err(format!("a policy's name must {problem}, such as `zone-aware`: found `{name}`"))
    }

    fn next_steps(&self, name: &str) -> String {
        let folder = self.folder.display();
        let artefact = self.language.artefact(name);
        let artefact = artefact.display();
        let mut text = format!(
            "{folder} is a policy {}that gives connections to the least loaded worker.\n\n  cd {folder}\n",
            self.language.title()
        );
        for (command, about) in self.language.commands() {
            let makes = format!("makes {artefact}");
            let about = if about.is_empty() { &makes } else { *about };
            text += &format!("  {command:<42} # {about}\n");
        }
        text += &format!(
            "  sidetrack policy check {artefact}\n  sidetrack policy test scenario.toml\n  \
             sidetrack run --policy ./{artefact} -- node server.js\n\n"
        );
        text += &match self.language.source() {
            Some(source) => {
                format!(
                    "Edit {source}: `sidetrack policy dev` puts every change into the sidetrack that runs."
                )
            }
            None => "Edit it: the sidetrack that runs follows every change.".to_owned(),
        };
        text + " README.md says more.\n"
    }
}

impl Language {
    /// As its people spell it, in a sentence.
    const fn title(self) -> &'static str {
        match self {
            Self::Rust => "in Rust ",
            Self::JavaScript => "in JavaScript ",
            Self::Python => "in Python ",
            Self::C => "in C ",
            Self::Script => "",
        }
    }
}

/// Names that Cargo refuses, or that a policy's own dependencies have.
const TAKEN: &[&str] = &[
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc-macro",
    "pub",
    "ref",
    "return",
    "self",
    "sidetrack-policy",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "wit-bindgen",
    "yield",
];

/// `zone-aware` as a type's name.
fn camel(name: &str) -> String {
    name.split('-')
        .flat_map(|word| {
            let mut letters = word.chars();
            letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn new(folder: &Path, name: &str, language: Language) -> New {
        New { folder: folder.join(name), language }
    }

    fn below(folder: &Path, prefix: &str, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
            if path.is_dir() {
                below(&path, &format!("{name}/"), found);
            } else {
                found.insert(name);
            }
        }
    }

    #[test]
    fn every_file_of_a_template_is_there_and_says_the_name() {
        let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk/policy");
        for language in Language::ALL {
            let folder = tempfile::tempdir().unwrap();
            let task = new(folder.path(), "zone-aware", language);
            assert_eq!(task.perform(), Ok(true));
            let (mut made, mut wanted) = (BTreeSet::new(), BTreeSet::new());
            below(&task.folder, "", &mut made);
            below(&sdk.join("templates").join(language.name()), "", &mut wanted);
            match language {
                Language::Rust => {
                    below(&sdk.join("src"), "sidetrack-policy/src/", &mut wanted);
                    wanted.insert("sidetrack-policy/wit/policy.wit".to_owned());
                }
                Language::JavaScript | Language::Python => {
                    wanted.insert("wit/deps/policy.wit".to_owned());
                }
                Language::C => {}
                Language::Script => {
                    wanted = wanted.iter().map(|path| path.replace(NAME, "zone-aware")).collect();
                }
            }
            assert_eq!(made, wanted, "{language:?}");
            for path in made {
                let text = fs::read_to_string(task.folder.join(&path)).unwrap();
                assert!(!text.contains(NAME) && !text.contains(CRATE), "{path} still says {NAME}");
            }
            assert!(fs::read_to_string(task.folder.join("README.md")).unwrap().starts_with("# zone-aware\n"));
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let task = new(folder.path(), "mine", Language::C);
        fs::create_dir(&task.folder).unwrap();
        assert_eq!(task.perform(), Ok(true), "an empty folder will do");
        fs::write(task.folder.join("policy.c"), "mine").unwrap();
        let error = task.perform().unwrap_err();
        assert!(error.contains("is not empty: choose another name, or empty it"), "{error}");
        assert_eq!(fs::read_to_string(task.folder.join("policy.c")).unwrap(), "mine");
    }

    #[test]
    fn names_that_do_not_work_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let long = "a".repeat(65);
        for (name, said) in [
            ("Zone", "must begin with a lower-case letter, such as `zone-aware`: found `Zone`"),
            ("1st", "must begin with"),
            ("..", "must begin with"),
            ("a_b", "must have lower-case letters, digits and dashes only"),
            ("a--b", "must have single dashes"),
            ("a-", "must have single dashes"),
            ("fn", "Rust lets no crate be called `fn`"),
            ("sidetrack-policy", "Rust lets no crate be called `sidetrack-policy`"),
            (&long, "has 64 characters at most"),
        ] {
            let error = new(folder.path(), name, Language::Rust).perform().unwrap_err();
            assert!(error.contains(said), "{name}: {error}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
        assert_eq!(new(folder.path(), "fn", Language::Python).perform(), Ok(true));
    }

    #[test]
    fn the_copied_crate_depends_on_what_the_original_does() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk/policy");
        let table = |path: &str| {
            let text = fs::read_to_string(root.join(path)).unwrap();
            let (_, table) = text.split_once("dependencies]\nwit-bindgen").unwrap();
            table.lines().next().unwrap().to_owned()
        };
        assert_eq!(table("templates/rust/sidetrack-policy/Cargo.toml"), table("Cargo.toml"));
    }
}
