//! `--watch`: workers follow their code.

use std::fs;

use crate::support::{Place, Sidetrack, eventually, get, sidetrack, try_get, worker};

/// A server that says which version of its code it is.
fn server(version: &str) -> String {
    format!(
        "require('http').createServer((_, answer) => answer.end({version:?})).listen(process.env.PORT);\n"
    )
}

#[test]
fn code_that_never_ran_is_tried_again_when_it_changes() {
    let place = Place::new();
    place.write("server.js", "this is no JavaScript");
    let node = worker("listen.js").swap_remove(0);
    let running = sidetrack(vec![node, place.text("server.js")]).workers(2).with(&["--watch"]).spawn();
    running.logged("no worker is left; they are started again when their code changes");
    place.write("server.js", server("mended"));
    running.all_ready_without(&[]);
    assert_eq!(get(running.address(), "/").text(), "mended");
    let started = running.log().matches("\"message\":\"worker started\"").count();
    assert_eq!(started, 8, "three times in each of two slots, and once more");
    assert_eq!(running.terminate().code, Some(0));
}

#[test]
fn workers_follow_their_code() {
    let place = Place::new();
    let save = |text: &str| place.write("server.js", text);
    save(&server("one"));
    let node = worker("listen.js").swap_remove(0);
    let running = sidetrack(vec![node, place.text("server.js")]).workers(2).with(&["--watch"]).start();
    let address = running.address();
    let says = |text: &str| {
        eventually(&format!("it is {text}"), || (try_get(address, "/").ok()?.text() == text).then_some(()));
    };
    says("one");
    let before = running.workers();
    save(&server("two"));
    says("two");
    running.logged("new workers have followed in all slots");
    let now = running.all_ready_without(&before);

    // One that does not run: those that do go on.
    save("this is no JavaScript");
    running.logged("a new worker did not become ready");
    assert_eq!((running.workers(), get(address, "/").text()), (now, "two".to_owned()));

    // What is no code is no reason.
    let lines = |running: &Sidetrack| running.log().matches("code has changed").count();
    let seen = lines(&running);
    for path in ["node_modules/x.js", ".git/index", "access.log"] {
        fs::create_dir_all(place.path(path).parent().expect("it is in one")).expect("a folder");
        place.write(path, "new");
    }
    save(&server("three"));
    says("three");
    assert_eq!(lines(&running), seen + 1);
    assert_eq!(running.terminate().code, Some(0));
}
