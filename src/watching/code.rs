//! The workers' own code, for development: tells when it has become another.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, SystemTime};

use super::{Folders, settled};

/// Quiet for so long means that a change is complete: builds write many files.
const QUIET: Duration = Duration::from_millis(100);

/// More folders than this are not watched: somebody has named a whole disk.
const MOST_FOLDERS: usize = 4096;

/// Folders of what is installed or built, besides those whose name begins with a dot.
const OTHERS: [&str; 3] = ["node_modules", "target", "__pycache__"];

/// What a running program writes, or an editor while it is at it.
const NO_CODE: [&str; 10] =
    ["~", ".log", ".tmp", ".swp", ".pid", ".sock", ".pyc", ".sqlite", ".sqlite-journal", ".sqlite-wal"];

/// Watches code, on a thread of its own, for as long as it lives.
#[derive(Debug)]
pub struct Code {
    tell: Sender<Told>,
}

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Stirred,
    End,
}

impl Code {
    /// Begins to watch what lies at and below some paths. `changed` is called from another thread.
    ///
    /// # Errors
    /// When no thread or no watch can be had; in words.
    pub fn watch(paths: Vec<PathBuf>, changed: impl Fn() + Send + 'static) -> Result<Self, String> {
        let (tell, told) = mpsc::channel();
        let stir = tell.clone();
        let mut folders = Folders::new(move || drop(stir.send(Told::Stirred)))?;
        let mut seen = Picture::of(&paths);
        seen.follow(&mut folders);
        let watching = move || run(&paths, &mut seen, &mut folders, &told, &changed);
        thread::Builder::new()
            .name("code-watch".into())
            .spawn(watching)
            .map_err(|error| error.to_string())?;
        Ok(Self { tell })
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        // The watcher itself keeps the channel open.
        let _ = self.tell.send(Told::End);
    }
}

fn run(
    paths: &[PathBuf],
    seen: &mut Picture,
    folders: &mut Folders,
    told: &Receiver<Told>,
    changed: &impl Fn(),
) {
    loop {
        // Between the picture and the watch something may have changed already.
        let now = Picture::of(paths);
        if now.files != seen.files {
            changed();
        }
        *seen = now;
        seen.follow(folders);
        let stirred = told.recv() == Ok(Told::Stirred) && settled(told, QUIET, |told| *told == Told::End);
        if !stirred {
            return;
        }
    }
}

/// All code as it is.
#[derive(Debug, Default)]
struct Picture {
    files: BTreeMap<PathBuf, (u64, Option<SystemTime>)>,
    folders: HashSet<PathBuf>,
    too_many: bool,
}

impl Picture {
    fn of(paths: &[PathBuf]) -> Self {
        let mut picture = Self::default();
        for path in paths {
            match fs::metadata(path) {
                Ok(file) if file.is_dir() => picture.add_folder(path),
                found => {
                    // A file is replaced, or comes back, in its folder.
                    picture.folders.insert(parent(path));
                    if let Ok(file) = found {
                        picture.add_file(path.clone(), &file);
                    }
                }
            }
        }
        picture
    }

    fn add_file(&mut self, path: PathBuf, file: &Metadata) {
        self.files.insert(path, (file.len(), file.modified().ok()));
    }

    fn add_folder(&mut self, path: &Path) {
        if self.folders.len() >= MOST_FOLDERS {
            self.too_many = true;
            return;
        }
        self.folders.insert(path.to_owned());
        // One that has gone meanwhile has nothing in it.
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let Ok(kind) = entry.file_type() else { continue };
            if name.starts_with('.') {
                continue;
            }
            // Links to folders are not followed: they may lead in circles.
            if kind.is_dir() {
                if !OTHERS.contains(&&*name) {
                    self.add_folder(&entry.path());
                }
            } else if !NO_CODE.iter().any(|ending| name.ends_with(ending))
                && let Ok(file) = fs::metadata(entry.path())
                && file.is_file()
            {
                self.add_file(entry.path(), &file);
            }
        }
    }

    fn follow(&self, folders: &mut Folders) {
        if self.too_many {
            tracing::warn!(
                most = MOST_FOLDERS,
                "there are too many folders: not all are watched; name fewer with --watch PATH"
            );
        }
        folders.follow(self.folders.clone(), |folder, error| {
            tracing::warn!(%error, folder = %folder.display(), "changes of code there are not seen");
        });
    }
}

/// The folder of a command's own code: of the first file or folder among its words, else of the program when
/// it is named by a path, else the present one. Paths are as seen from `cwd`.
#[must_use]
pub fn folder_of(command: &[String], cwd: &Path) -> PathBuf {
    let words = command.iter().skip(1).filter(|word| !word.starts_with('-')).map(Path::new);
    for path in words {
        if cwd.join(path).is_dir() {
            return path.to_owned();
        }
        if cwd.join(path).is_file() {
            return parent(path);
        }
    }
    let program = command.first().map(Path::new).filter(|program| program.components().count() > 1);
    program.map_or_else(|| ".".into(), parent)
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => ".".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_code_is_not_in_the_picture() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        for path in ["src/deep", "node_modules/x", "target", ".git", "src/__pycache__"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        let files = [
            "server.js",
            "src/a.js",
            "src/deep/b.json",
            "node_modules/x/c.js",
            "target/d",
            ".git/e",
            "src/.f.swp",
            "server.log",
            "src/__pycache__/g.pyc",
            "a.js~",
        ];
        for path in files {
            fs::write(at(path), path).unwrap();
        }
        std::os::unix::fs::symlink(folder.path(), at("src/circle")).unwrap();
        let picture = Picture::of(&[folder.path().to_owned()]);
        let names: Vec<_> = picture
            .files
            .keys()
            .map(|path| path.strip_prefix(folder.path()).unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["server.js", "src/a.js", "src/deep/b.json"]);
        assert_eq!(picture.folders.len(), 3);
        // One that is named is looked at whatever its name.
        assert_eq!(Picture::of(&[at("server.log"), at("target")]).files.len(), 2);
    }

    #[test]
    fn the_folder_is_that_of_the_script_or_of_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("server.js");
        fs::write(&script, "").unwrap();
        let command = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            folder_of(&command(&["node", "--inspect", script.to_str().unwrap(), "x"]), Path::new("")),
            folder.path()
        );
        assert_eq!(folder_of(&command(&["node", "server.js"]), folder.path()), Path::new("."));
        assert_eq!(folder_of(&command(&["bin/server"]), Path::new("")), Path::new("bin"));
        assert_eq!(folder_of(&command(&["python3", "-m", "app", "app:app"]), Path::new("")), Path::new("."));
    }
}
