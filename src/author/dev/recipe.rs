//! How a project becomes a policy file: what its folder suggests, unless somebody says otherwise.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

/// Folders that builds and tools fill: nothing in them is a change.
const MADE: [&str; 8] = ["target", "node_modules", "dist", "build", ".git", "__pycache__", ".venv", "venv"];
/// How deep an artefact may lie: Cargo's is at target/wasm32-unknown-unknown/release.
const DEPTH: usize = 4;

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    /// Where it is built, and what is watched.
    folder: PathBuf,
    /// A shell command; none for a file that needs no building.
    command: Option<String>,
    artefact: Option<PathBuf>,
}

/// What a file in a project's folder says about building it.
const SIGNS: [(&str, &str); 3] = [
    ("Cargo.toml", "cargo build --release --target wasm32-unknown-unknown"),
    ("package.json", "npm run build"),
    ("Makefile", "make"),
];

impl Recipe {
    /// # Errors
    /// When nothing tells how to build what is there.
    pub(super) fn new(path: &Path, build: Option<&str>, artefact: Option<&Path>) -> Result<Self, String> {
        let found = fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
        if found.is_file() {
            let folder = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
                _ => PathBuf::from("."),
            };
            let artefact = artefact.unwrap_or(path).to_owned();
            return Ok(Self { folder, command: build.map(str::to_owned), artefact: Some(artefact) });
        }
        let suggested =
            || SIGNS.iter().find(|(sign, _)| path.join(sign).is_file()).map(|(_, command)| *command);
        let Some(command) = build.or_else(suggested) else {
            let signs = SIGNS.map(|(sign, _)| sign).join(", ");
            return Err(format!(
                "{}: nothing tells how to build it: expected {signs}, or --build COMMAND; a script or a .wasm file is named itself",
                path.display()
            ));
        };
        Ok(Self {
            folder: path.to_owned(),
            command: Some(command.to_owned()),
            artefact: artefact.map(Path::to_owned),
        })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether a change of that file is a reason to build again.
    pub(super) fn concerns(&self, path: &Path) -> bool {
        if self.command.is_none() {
            // Only the file itself, which may be given by another path to the same folder.
            return self.artefact.as_ref().is_some_and(|file| file.file_name() == path.file_name());
        }
        let inside = std::path::absolute(&self.folder).unwrap_or_else(|_| self.folder.clone());
        let inside = path.strip_prefix(&inside).or_else(|_| path.strip_prefix(&self.folder)).unwrap_or(path);
        let made = inside.components().any(|part| MADE.iter().any(|name| part.as_os_str() == *name));
        let made = made || self.artefact.as_ref().is_some_and(|file| file.file_name() == path.file_name());
        !made && path.extension().is_none_or(|extension| extension != "wasm")
    }

    /// Builds, with the tool's own words on stderr, and returns the file that came of it.
    pub(super) fn build(&self) -> Result<PathBuf, String> {
        if let Some(command) = &self.command {
            let status = Command::new("sh")
                .args(["-c", command])
                .current_dir(&self.folder)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .status()
                .map_err(|error| format!("not built: sh: {error}"))?;
            if !status.success() {
                return Err(format!("not built: `{command}` ended with {status}; the version before stays"));
            }
        }
        match &self.artefact {
            Some(file) => Ok(file.clone()),
            None => newest(&self.folder, DEPTH).map(|(_, path)| path).ok_or_else(|| {
                format!(
                    "no .wasm file in {} after the build; name it with --artefact FILE",
                    self.folder.display()
                )
            }),
        }
    }
}

/// The newest .wasm file in a folder. Cargo's own intermediate files are left out.
fn newest(folder: &Path, depth: usize) -> Option<(SystemTime, PathBuf)> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let found = entries.filter_map(|entry| {
        let (path, kind) = (entry.path(), entry.file_type().ok()?);
        if kind.is_dir() {
            let skipped =
                ["node_modules", "deps", "debug", ".git"].iter().any(|name| entry.file_name() == *name);
            return if depth == 0 || skipped { None } else { newest(&path, depth - 1) };
        }
        let wasm = path.extension().is_some_and(|extension| extension == "wasm");
        if wasm { Some((entry.metadata().ok()?.modified().ok()?, path)) } else { None }
    });
    found.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_says_how_it_is_built() {
        let folder = tempfile::tempdir().unwrap();
        let error = Recipe::new(folder.path(), None, None).unwrap_err();
        assert!(error.contains("expected Cargo.toml, package.json, Makefile, or --build COMMAND"), "{error}");
        fs::write(folder.path().join("Makefile"), "").unwrap();
        let recipe = Recipe::new(folder.path(), None, None).unwrap();
        assert_eq!(recipe.command.as_deref(), Some("make"));
        fs::write(folder.path().join("Cargo.toml"), "").unwrap();
        let recipe = Recipe::new(folder.path(), None, None).unwrap();
        assert!(recipe.command.as_deref().is_some_and(|command| command.starts_with("cargo build")));
        let recipe = Recipe::new(folder.path(), Some("true"), None).unwrap();
        assert_eq!(recipe.command.as_deref(), Some("true"));
        assert!(Recipe::new(&folder.path().join("none"), None, None).is_err());
    }

    #[test]
    fn sources_concern_it_and_what_is_made_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = |path: &str| folder.path().join(path);
        let recipe = Recipe::new(folder.path(), Some("true"), None).unwrap();
        assert!(recipe.concerns(&file("src/lib.rs")) && recipe.concerns(&file("Cargo.toml")));
        for made in ["target/release/a.d", "node_modules/x/index.js", "policy.wasm", "a/__pycache__/b.pyc"] {
            assert!(!recipe.concerns(&file(made)), "{made}");
        }
        fs::write(file("mine.js"), "").unwrap();
        let recipe = Recipe::new(&file("mine.js"), None, None).unwrap();
        assert!(recipe.concerns(&file("mine.js")) && !recipe.concerns(&file("other.js")));
        assert_eq!(recipe.build().unwrap(), file("mine.js"));
    }

    #[test]
    fn the_newest_artefact_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let release = folder.path().join("target/wasm32-unknown-unknown/release");
        fs::create_dir_all(release.join("deps")).unwrap();
        let recipe = Recipe::new(folder.path(), Some("true"), None).unwrap();
        assert!(recipe.build().unwrap_err().contains("name it with --artefact"));
        fs::write(release.join("mine.wasm"), "").unwrap();
        fs::write(release.join("deps/mine.wasm"), "").unwrap();
        assert_eq!(recipe.build().unwrap(), release.join("mine.wasm"));
        let failing = Recipe::new(folder.path(), Some("exit 3"), None).unwrap();
        assert!(failing.build().unwrap_err().contains("`exit 3` ended with exit status: 3"));
    }
}
