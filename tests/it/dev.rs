//! `sidetrack policy dev`: what an author saves is what runs, unless it is no good.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::policy::{Scene, text, variant};

/// `policy dev`, ended with this value.
struct Dev {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Dev {
    fn start(folder: &Path, scene: &Scene) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sidetrack"))
            .args(["policy", "dev", &text(folder), "--build", "cp src/policy.bin out.wasm"])
            .args(["--admin", &text(&scene.socket())])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, out }
    }

    /// What it says until it waits for the next change.
    fn turn(&mut self) -> String {
        let mut said = String::new();
        while !said.contains("watching ") {
            let read = self.out.read_line(&mut said).expect("it speaks text");
            assert!(read > 0, "it has ended: {said}");
        }
        said
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn every_good_change_is_swapped_in_and_no_other() {
    let scene = Scene::new();
    let running = scene.start(&[]);
    let project = tempfile::tempdir().expect("a folder");
    fs::create_dir(project.path().join("src")).expect("a folder");
    let source = project.path().join("src/policy.bin");
    fs::write(&source, variant("least-connection", 1)).expect("it can be written");

    let mut dev = Dev::start(project.path(), &scene);
    let said = dev.turn();
    assert!(said.starts_with("policy runs it as generation 2; state dropped"), "{said}");

    // Not WebAssembly, then a policy that fails a case, then one that does not build.
    fs::write(&source, "nonsense").expect("it can be written");
    let said = dev.turn();
    assert!(said.starts_with("not swapped in: policy") && said.contains("not WebAssembly"), "{said}");
    fs::remove_file(&source).expect("it is there");
    let said = dev.turn();
    assert!(said.starts_with("not built: `cp src/policy.bin out.wasm` ended with exit status: 1"), "{said}");
    assert_eq!(scene.generation(), 2);

    fs::write(&source, variant("round-robin", 2)).expect("it can be written");
    let said = dev.turn();
    // The running sidetrack watches the file by now, so it may be the first.
    assert!(said.starts_with("policy runs it as generation 3"), "{said}");
    assert_eq!(scene.generation(), 3);
    drop(dev);
    running.stop();
}

#[test]
fn without_anybody_running_it_says_how_to_run() {
    let project = tempfile::tempdir().expect("a folder");
    let file = project.path().join("mine.wasm");
    fs::write(&file, variant("random", 1)).expect("it can be written");
    let dev = |path: &Path, admin: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_sidetrack"))
            .args(["policy", "dev", &text(path), "--once", "--admin", admin])
            .output()
            .expect("the program starts");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), said)
    };
    let (code, said) = dev(&file, "/nobody/here.sock");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("nobody answers at /nobody/here.sock"), "{said}");
    let (code, said) = dev(project.path(), "/nobody/here.sock");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("expected Cargo.toml, package.json, Makefile, or --build COMMAND"), "{said}");
}
