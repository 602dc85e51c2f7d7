//! Compiled policies, kept between runs: compiling takes 25 ms for a small policy and more than a
//! second for a script engine, reading the result less than 1 ms and a few.
//!
//! Compiled code is machine code and is trusted as such. So it is only read from a folder that
//! belongs to this user and that nobody else may write to, and only when it still has the digest it
//! was written with.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::unistd::Uid;
use wasmtime::component::Component;

use super::version::Digest;

/// The most policies kept; the one unused for longest makes room.
const MOST: usize = 64;
const DIGEST: usize = 32;

/// The folder of compiled policies, if there is a safe one.
#[derive(Debug)]
pub(super) struct Cache(Option<PathBuf>);

impl Cache {
    /// `$XDG_CACHE_HOME/sidetrack`, or `~/.cache/sidetrack`.
    pub(super) fn open() -> Self {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
        Self(base.and_then(|base| safe(base.join("sidetrack"))))
    }

    /// Keeps nothing.
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// The compiled form of what has this digest, as this engine would compile it.
    pub(super) fn get(&self, engine: &wasmtime::Engine, digest: Digest) -> Option<Component> {
        let path = self.path(engine, digest)?;
        let bytes = fs::read(&path).ok()?;
        let (seal, code) = bytes.split_at_checked(DIGEST)?;
        if seal != Digest::of(code).bytes() {
            return None;
        }
        // Marks it as used; one that cannot be marked is only forgotten earlier.
        drop(fs::File::open(&path).and_then(|file| file.set_modified(SystemTime::now())));
        #[allow(unsafe_code, reason = "compiled code is trusted as a program is")]
        // SAFETY: the bytes are what `serialize` returned: they have the digest written with them, and
        // nobody but this user may write to the folder. The engine refuses what another one has made.
        let component = unsafe { Component::deserialize(engine, code) };
        component.ok()
    }

    /// Keeps a compiled policy. That it cannot is no matter: it is compiled again.
    pub(super) fn put(&self, engine: &wasmtime::Engine, digest: Digest, component: &Component) {
        let (Some(path), Ok(code)) = (self.path(engine, digest), component.serialize()) else { return };
        let Some(folder) = path.parent() else { return };
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(Digest::of(&code).bytes())?;
            file.write_all(&code)?;
            file.persist(&path).map_err(|error| error.error)
        };
        if let Err(error) = write() {
            tracing::debug!(%error, folder = %folder.display(), "compiled policy not kept");
        }
        make_room(folder);
    }

    fn path(&self, engine: &wasmtime::Engine, digest: Digest) -> Option<PathBuf> {
        let mut made_by = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut made_by);
        let name = format!("{digest:#}-{:016x}.cwasm", made_by.finish());
        self.0.as_ref().map(|folder| folder.join(name))
    }
}

/// The folder, made if need be, when it is this user's alone to write to.
fn safe(folder: PathBuf) -> Option<PathBuf> {
    // It may be there already, or not be possible: the look at it decides.
    drop(fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder));
    let found = fs::symlink_metadata(&folder).ok()?;
    let own = found.is_dir() && found.uid() == Uid::effective().as_raw() && found.mode() & 0o022 == 0;
    own.then_some(folder)
}

fn make_room(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let used = |entry: &fs::DirEntry| entry.metadata().and_then(|found| found.modified()).ok();
    let mut files: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "cwasm"))
        .filter_map(|entry| Some((used(&entry)?, entry.path())))
        .collect();
    files.sort_unstable();
    for (_, path) in files.iter().rev().skip(MOST) {
        drop(fs::remove_file(path));
    }
}

#[cfg(test)]
mod tests {
    use super::super::BuiltIn;
    use super::super::engine::Engine;
    use super::super::version;
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_was_kept_is_found_and_what_was_damaged_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache(safe(folder.path().join("sidetrack")));
        let engine = Engine::new().unwrap();
        let bytes = version::encode(BuiltIn::Random.wasm()).unwrap();
        let digest = Digest::of(&bytes);
        assert!(cache.get(engine.inner(), digest).is_none());
        cache.put(engine.inner(), digest, &Component::new(engine.inner(), &bytes).unwrap());
        assert!(cache.get(engine.inner(), digest).is_some());

        let path = cache.path(engine.inner(), digest).unwrap();
        let mut damaged = fs::read(&path).unwrap();
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        for bytes in [&damaged[..], &damaged[..100], b""] {
            fs::write(&path, bytes).unwrap();
            assert!(cache.get(engine.inner(), digest).is_none());
        }
    }

    #[test]
    fn a_folder_others_may_write_to_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(safe(folder.path().to_owned()), None);
        fs::write(folder.path().join("file"), "").unwrap();
        assert_eq!(safe(folder.path().join("file")), None);
        assert_eq!(Cache::none().get(Engine::new().unwrap().inner(), Digest::of(b"")).map(drop), None);
    }

    #[test]
    fn the_oldest_make_room() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..MOST + 3 {
            let path = folder.path().join(format!("{number}.cwasm"));
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(number as u64);
            fs::File::create(path).unwrap().set_modified(time).unwrap();
        }
        make_room(folder.path());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), MOST);
        assert!(!folder.path().join("2.cwasm").exists() && folder.path().join("3.cwasm").exists());
    }
}
