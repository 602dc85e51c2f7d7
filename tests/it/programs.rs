//! Programs that do more than serve the web, as they do without sidetrack.

use std::net::TcpListener;
use std::process::Command;

use crate::support::{Place, Run, eventually, free_port, get, pid, root, sidetrack, signal, try_get, worker};

/// A program of a few lines.
fn program(place: &Place, text: &str) -> Run {
    place.write("program.js", text);
    sidetrack(vec![worker("listen.js").swap_remove(0), place.text("program.js")]).workers(2).listen(&[])
}

const WEB: &str =
    "require('http').createServer((request, response) => response.end(`{\"pid\":${process.pid}}`))";

#[test]
fn a_server_with_tls_beside_the_web_is_served() {
    let place = Place::new();
    let folder = root().join("tests/node/tls");
    let text = format!(
        "const {{ readFileSync }} = require('fs');
        const pem = (name) => readFileSync({folder:?} + `/${{name}}.pem`);
        {WEB}.listen(0, '127.0.0.1', () => {{
          require('https')
            .createServer({{ key: pem('key'), cert: pem('cert') }}, (request, response) => response.end('sealed'))
            .listen(0, '127.0.0.1');
        }});"
    );
    let running = program(&place, &text).start();
    let addresses = eventually("both are there", || {
        Some(running.all_addresses()).filter(|addresses| addresses.len() == 2)
    });
    assert!(running.workers().contains(&pid(addresses[0])));
    // Several requests on each of several connections.
    let client = format!(
        "const https = require('https');
        const ask = (agent) => new Promise((done, failed) => https
          .get({{ port: {}, rejectUnauthorized: false, agent }}, (answer) => answer.on('data', (text) => done(`${{text}}`)))
          .on('error', failed));
        (async () => {{
          for (let i = 0; i < 4; i++) {{
            const agent = new https.Agent({{ keepAlive: true, maxSockets: 1 }});
            for (let j = 0; j < 3; j++) console.log(await ask(agent));
            agent.destroy();
          }}
        }})();",
        addresses[1].port()
    );
    let output = Command::new("node").args(["-e", &client]).output().expect("node");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said.matches("sealed").count(), 12, "{said} {}", String::from_utf8_lossy(&output.stderr));
    let stopped = running.stop();
    assert_eq!((stopped.count("workers_lost"), stopped.count("refused")), (0, 0));
}

#[test]
fn a_program_that_listens_for_sigterm_gets_it_when_its_last_client_has_gone() {
    let place = Place::new();
    // Something keeps it going until it has put things away.
    let text = format!(
        "const keep = setInterval(() => {{}}, 1000);
        process.on('SIGTERM', () => setTimeout(() => {{ console.log('put away'); clearInterval(keep); }}, 100));
        {WEB}.listen(0, '127.0.0.1');"
    );
    let running = program(&place, &text).start();
    get(running.address(), "/");
    let stopped = running.terminate();
    assert_eq!((stopped.code, stopped.log.matches("put away").count()), (Some(0), 2), "{}", stopped.log);
    assert!(!stopped.log.contains("workers are still there"), "{}", stopped.log);
}

#[test]
fn a_taken_port_is_the_programs_own_error() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let text = format!(
        "const side = require('http').createServer().on('error', ({{ code }}) => {{
          console.log('side:', code);
          {WEB}.listen(0, '127.0.0.1');
        }});
        side.listen({port}, '127.0.0.1');"
    );
    let running = program(&place, &text).start();
    assert!(running.workers().contains(&pid(running.address())));
    assert_eq!(running.log().matches("side: EADDRINUSE").count(), 2);
    assert_eq!(running.stop().count("workers_lost"), 0);
}

#[test]
fn a_parameter_that_only_looks_like_a_session_is_noticed() {
    let place = Place::new();
    let running =
        program(&place, &format!("{WEB}.listen(0, '127.0.0.1');")).with(&["--hold", "10ms"]).start();
    for n in 0..30 {
        assert_eq!(get(running.address(), &format!("/calls?sid=CA{n}")).status, 200);
    }
    let said = "requests name sessions, and no worker has announced one yet";
    assert_eq!(running.log().matches(said).count(), 1);
    running.stop();
}

#[test]
fn what_a_program_closes_is_free_again() {
    let place = Place::new();
    let (first, second) = (free_port(), free_port());
    // Whether the port is free is tried out on every address, as some do, and only by one of them.
    let text = format!(
        "const http = require('http');
        const serve = () => {{
          const web = {WEB}.listen({first}, '127.0.0.1');
          process.on('SIGUSR2', () => web.close(() => {WEB}.listen({second}, '127.0.0.1', () => console.log('moved'))));
        }};
        if (process.env.SIDETRACK_SLOT === 'w1') setTimeout(serve, 1000);
        else {{
          const probe = require('net').createServer().listen({first}, '0.0.0.0', () => probe.close(serve));
        }}"
    );
    let running = program(&place, &text).start();
    let at = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let workers = running.workers();
    assert!(workers.contains(&pid(at(first))));
    assert_eq!(running.all_addresses(), [at(first)]);
    workers.iter().for_each(|worker| signal(*worker, nix::sys::signal::Signal::SIGUSR2));
    eventually("both have moved", || (running.log().matches("moved").count() == 2).then_some(()));
    assert!(workers.contains(&pid(at(second))));
    eventually("nobody listens there any more", || try_get(at(first), "/").err());
    eventually("it is told", || (running.all_addresses() == [at(second)]).then_some(()));
    // The port is anybody's.
    drop(TcpListener::bind(at(first)).expect("it is free"));
    let stopped = running.stop();
    assert_eq!((stopped.count("workers_lost"), stopped.count("refused")), (0, 0));
}

#[test]
fn a_program_that_throws_at_messages_it_does_not_know_is_served() {
    let place = Place::new();
    // sidetrack asks while it does not listen yet.
    let text = format!(
        "process.on('message', (message) => {{
          console.log('asked');
          throw new Error(`unknown: ${{JSON.stringify(message)}}`);
        }});
        const waiting = setInterval(() => {{
          if (!require('fs').existsSync('{}')) return;
          clearInterval(waiting);
          {WEB}.listen(0, '127.0.0.1');
        }}, 20);",
        place.text("go")
    );
    let starting = program(&place, &text).spawn();
    eventually("both are asked", || (starting.log().matches("asked").count() >= 2).then_some(()));
    place.write("go", "");
    let address = eventually("it serves", || starting.ready().map(|_| starting.address()));
    assert_eq!(get(address, "/").status, 200);
    assert_eq!(starting.terminate().count("workers_lost"), 0);
}
