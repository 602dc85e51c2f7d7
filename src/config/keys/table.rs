//! Every setting, once.

use std::time::Duration;

use sidetrack_worker::Keepalive;

use super::{Change, Key, Kind};
use crate::config::Admin;
use crate::record::Keep;
use crate::session::SessionKey;
use crate::telemetry::trace;
use crate::types::Opening;

const GIBIBYTE: u64 = 1 << 30;
const SHORTEST_SESSION_IDLE: Duration = Duration::from_secs(120);

/// All settings, in the order of the help.
pub const KEYS: &[Key] = &[
    Key {
        name: "command",
        flag: "command",
        value: "COMMAND",
        help: "The worker's command and its arguments, behind `--`. Started once for each worker",
        default: "",
        group: "",
        kind: Kind::Rest,
        change: Change::Rolling,
        apply: |config, given| given.list().map(|list| config.command = list),
    },
    Key {
        name: "workers",
        flag: "workers",
        value: "N",
        help: "How many workers to start; none with 0, when all of them join. Without it, as many as this process may use cores",
        default: "",
        group: "What runs",
        kind: Kind::One,
        change: Change::Hot,
        apply: |config, given| given.number(0, 1024).map(|number| config.workers = number),
    },
    Key {
        name: "policy",
        flag: "policy",
        value: "NAME|FILE",
        help: "Who gets a new connection: a built-in (see `sidetrack policy list`) or a file of your own, WebAssembly or JavaScript; options as JSON right behind it. Repeat it for a chain: who defers leaves it to the next",
        default: "least-connection",
        group: "What runs",
        kind: Kind::Many,
        change: Change::Hot,
        apply: |config, given| given.links().map(|links| config.policy = links),
    },
    Key {
        name: "policy-config",
        flag: "policy-config",
        value: "JSON",
        help: "Options of the policy, when there is just one",
        default: "",
        group: "What runs",
        kind: Kind::One,
        change: Change::Hot,
        apply: |config, given| given.text().map(|text| config.policy_config = Some(text)),
    },
    Key {
        name: "shadow",
        flag: "shadow",
        value: "NAME|FILE",
        help: "A policy to try on the true traffic: asked about every new connection beside the real one, compared with it and never heeded; `sidetrack policy shadow status` tells how it does",
        default: "",
        group: "What runs",
        kind: Kind::One,
        change: Change::Hot,
        apply: |config, given| given.link().map(|link| config.shadow = Some(link)),
    },
    Key {
        name: "shim",
        flag: "no-shim",
        value: "BOOL",
        help: "Preload nothing into Node workers. They then announce sessions only if they use @socket.io/sticky",
        default: "true",
        group: "What runs",
        kind: Kind::Off,
        change: Change::Rolling,
        apply: |config, given| given.boolean().map(|shim| config.shim = shim),
    },
    Key {
        name: "listen",
        flag: "listen",
        value: "ADDRESS",
        help: "Where to listen: HOST:PORT, [IPv6]:PORT, :PORT or unix:PATH; repeatable. Without it, where the worker's own listen() asks. ADDRESS=PORT serves the worker's server that asks for PORT",
        default: "",
        group: "Where",
        kind: Kind::Many,
        change: Change::Hot,
        apply: |config, given| given.listens().map(|listens| config.listen = listens),
    },
    Key {
        name: "proxy-protocol",
        flag: "proxy-protocol",
        value: "BOOL",
        help: "Whether connections begin with a PROXY header, version 1 or 2, that tells who the client is; one without it is closed. In the file, an address may say so for itself: { address = \":3001\", proxy-protocol = true }",
        default: "false",
        group: "Where",
        kind: Kind::One,
        change: Change::Restart,
        apply: |config, given| {
            let opening = |wanted| if wanted { Opening::Preamble } else { Opening::Request };
            given.boolean().map(|wanted| config.opening = opening(wanted))
        },
    },
    Key {
        name: "proxy-from",
        flag: "proxy-from",
        value: "NETWORK",
        help: "From where such connections may come, such as 10.0.0.0/8; others are closed. Repeatable; without it, from anywhere",
        default: "",
        group: "Where",
        kind: Kind::Many,
        change: Change::Hot,
        apply: |config, given| given.networks().map(|networks| config.front.proxy_from = networks),
    },
    Key {
        name: "trusted-proxies",
        flag: "trusted-proxies",
        value: "NETWORK",
        help: "Proxies, such as 127.0.0.0/8, whose X-Forwarded-For tells policies and client limits who the client is; repeatable",
        default: "",
        group: "Where",
        kind: Kind::Many,
        change: Change::Hot,
        apply: |config, given| given.networks().map(|networks| config.front.trusted_proxies = networks),
    },
    Key {
        name: "client-header",
        flag: "client-header",
        value: "NAME",
        help: "The header they write the client's address to: x-forwarded-for or forwarded",
        default: "x-forwarded-for",
        group: "Where",
        kind: Kind::One,
        change: Change::Hot,
        apply: |config, given| given.text()?.parse().map(|header| config.front.client_header = header),
    },
    Key {
        name: "health",
        flag: "health",
        value: "PATH",
        help: "Answer GET and HEAD of this path, such as /healthz, without a worker: 200 while one is ready, else 503",
        default: "",
        group: "Where",
        kind: Kind::One,
        change: Change::Hot,
        apply: |config, given| {
            let path = given.text()?;
            if !path.starts_with('/') || path.contains(['?', '#', ' ']) {
                return Err(format!("expected a path without a query, such as \"/healthz\", found {given}"));
            }
            config.front.health = Some(path);
            Ok(())
        },
    },
    Key {
        name: "session-key",
        flag: "session-key",
        value: "KEY",
        help: "Where a request carries its session id: query:NAME, cookie:NAME, header:NAME or path:N",
        default: "query:sid",
        group: "Where",
        kind: Kind::One,
        change: Change::Restart,
        apply: |config, given| {
            given.parsed::<SessionKey>("a session key").map(|key| config.route.session_key = key)
        },
    },
    Key {
        name: "keepalive",
        flag: "keepalive",
        value: "MODE",
        help: "What happens to a request on a used connection that belongs to another worker: hand-back moves the connection there, close ends every connection after one response, worker leaves it to the worker",
        default: "hand-back",
        group: "Where",
        kind: Kind::One,
        change: Change::Rolling,
        apply: |config, given| {
            given.parsed::<Keepalive>("hand-back, close or worker").map(|mode| config.keepalive = mode)
        },
    },
    Key {
        name: "join-socket",
        flag: "join-socket",
        value: "PATH",
        help: "A Unix socket at which workers that others start may join: sidetrack join --socket PATH -- COMMAND",
        default: "",
        group: "Where",
        kind: Kind::One,
        change: Change::Restart,
        apply: |config, given| given.text().map(|path| config.join_socket = Some(path.into())),
    },
    Key {
        name: "join-group",
        flag: "join-group",
        value: "GROUP",
        help: "A group whose members may join too. Without it, only this user and root",
        default: "",
        group: "Where",
        kind: Kind::One,
        change: Change::Restart,
        apply: |config, given| given.text().map(|group| config.join_group = Some(group)),
    },
    Key {
        name: "admin",
        flag: "admin",
        value: "PATH|off",
        help: "The Unix socket of the admin interface, for `sidetrack policy`; this user's alone. Without it, one in the runtime folder that those commands find by themselves",
        default: "",
        group: "Where",
        kind: Kind::One,
        change: Change::Restart,
        apply: |config, given| {
            given.text().map(|text| {
                config.admin = if text == "off" { Admin::Off } else { Admin::At(text.into()) };
            })
        },
    },
    Key {
        name: "admin-listen",
        flag: "admin-listen",
        value: "ADDRESS",
        help: "The admin interface over TCP, too, with a page for people, such as 127.0.0.1:9000. Other addresses than loopback need a token",
        default: "",
        group: "Where",
        kind: Kind::One,
        change: Change::Restart,
        apply: |config, given| given.admin_address().map(|address| config.admin_listen = Some(address)),
    },
    Key {
        name: "admin-token-file",
        flag: "admin-token-file",
        value: "PATH",
        help: "A file with the token that --admin-listen asks for; it is made when it is not there",
        default: "",
        group: "Where",
        kind: Kind::One,
        change: Change::Restart,
        apply: |config, given| given.text().map(|text| config.admin_token_file = Some(text.into())),
    },
    Key {
        name: "ready-file",
        flag: "ready-file",
        value: "PATH",
        help: "A JSON file with addresses and workers, written once the first worker is ready and again whenever they change",
        default: "",
        group: "Where",
        kind: Kind::One,
        change: Change::Restart,
        apply: |config, given| given.text().map(|text| config.ready_file = Some(text.into())),
    },
    Key {
        name: "head-limit",
        flag: "head-limit",
        value: "SIZE",
        help: "The longest request head; a longer one is answered with 431",
        default: "16KiB",
        group: "Limits",
        kind: Kind::One,
        change: Change::Hot,
        apply: |config, given| given.bytes(256, 64 * 1024).map(|limit| config.peek.limit = limit),
    },
    Key {
        name: "head-timeout",
        flag: "head-timeout",
        value: "TIME",
        help: "How long a client may take to send its request head; then 408",
        default: "10s",
        group: "Limits",
        kind: Kind::One,
        change: Change::Hot,
        apply: |config, given| given.duration().map(|time| config.peek.timeout = time),
    },
    Key {
        name: "hold",
        flag: "hold",
        value: "TIME",
        help: "How long a request with an unknown session id waits for a worker to announce it",
        default: "300ms",
        group: "Limits",
        kind: Kind::One,
        change: Change::Hot,
        apply: |config, given| given.duration().map(|time| config.route.hold = time),
    },
    Key {
        name: "worker-wait",
        flag: "worker-wait",
        value: "TIME",
        help: "How long a connection waits while no worker is ready; then 503",
        default: "5s",
        group: "Limits",
        kind: Kind::One,
        change: Change::Hot,
        apply: |config, given| given.duration().map(|time| config.route.worker_wait = time),
    },
    Key {
        name: "max-pending",
        flag: "max-pending",
        value: "N",
        help: "Connections between accept and a worker's acknowledgement; more wait in the kernel's backlog",
        default: "8192",
        group: "Limits",
        kind: Kind::One,
        change: Change::Hot,
        apply: |config, given| given.number(1, 1 << 20).map(|number| config.max_pending = number),
    },
    Key {
        name: "max-per-client",
        flag: "max-per-client",
        value: "N",
        help: "Of those, connections of one client address (IPv6: network of 64 bits); more are closed. 0 for as many as there are",
        default: "0",
        group: "Limits",
        kind: Kind::One,
        change: Change::Hot,
        apply: |config, given| {
            let number = given.number(0, 1 << 20)?;
            config.front.max_per_client = u32::try_from(number).unwrap_or(u32::MAX);
            Ok(())
        },
    },
    Key {
        name: "client-rate",
        flag: "client-rate",
        value: "N/UNIT",
        help: "How fast one client may open connections, such as 20/s, 600/m or 5000/h, all at once or spread; then 429",
        default: "",
        group: "Limits",
        kind: Kind::One,
        change: Change::Hot,
        apply: |config, given| given.text()?.parse().map(|rate| config.front.client_rate = Some(rate)),
    },
    Key {
        name: "max-sessions",
        flag: "max-sessions",
        value: "N",
        help: "Sessions remembered at the same time",
        default: "1000000",
        group: "Limits",
        kind: Kind::One,
        change: Change::Hot,
        apply: |config, given| given.number(1, 1 << 30).map(|number| config.max_sessions = number),
    },
    Key {
        name: "session-idle",
        flag: "session-idle",
        value: "TIME",
        help: "How long a session whose end no worker announces (cookies, headers, paths, bundled servers) is remembered after it was last used",
        default: "30m",
        group: "Limits",
        kind: Kind::One,
        change: Change::Rolling,
        apply: |config, given| {
            let time = given.duration()?;
            // Workers say once a minute which of them are in use.
            if time < SHORTEST_SESSION_IDLE {
                return Err(format!("expected a time of at least 2m, found {given}"));
            }
            config.session_idle = time;
            Ok(())
        },
    },
    Key {
        name: "weight",
        flag: "weight",
        value: "SLOT=N",
        help: "A worker's relative capacity, for policies that look at it; 1 without it; repeatable",
        default: "",
        group: "Workers",
        kind: Kind::Many,
        change: Change::Hot,
        apply: |config, given| {
            for text in given.list()? {
                let (slot, number) = text
                    .split_once('=')
                    .and_then(|(slot, number)| Some((slot, number.parse().ok()?)))
                    .ok_or_else(|| format!("expected SLOT=N, such as w0=2, found \"{text}\""))?;
                config.worker.facts.entry(slot.to_owned()).or_default().weight = number;
            }
            Ok(())
        },
    },
    Key {
        name: "label",
        flag: "label",
        value: "SLOT:KEY=VALUE",
        help: "A fact about a worker, for policies that look at it, such as w3:track=canary; repeatable",
        default: "",
        group: "Workers",
        kind: Kind::Many,
        change: Change::Hot,
        apply: |config, given| {
            for text in given.list()? {
                let (slot, key, value) = text
                    .split_once(':')
                    .and_then(|(slot, fact)| fact.split_once('=').map(|(key, value)| (slot, key, value)))
                    .ok_or_else(|| {
                        format!("expected SLOT:KEY=VALUE, such as w3:track=canary, found \"{text}\"")
                    })?;
                let facts = config.worker.facts.entry(slot.to_owned()).or_default();
                facts.labels.push((key.to_owned(), value.to_owned()));
            }
            Ok(())
        },
    },
    Key {
        name: "tagged-sids",
        flag: "tagged-sids",
        value: "BOOL",
        help: "Have workers begin new session ids with their slot's name, such as w2.…, for the policy tagged-sid",
        default: "false",
        group: "Workers",
        kind: Kind::One,
        change: Change::Rolling,
        apply: |config, given| given.boolean().map(|tagged| config.tagged_sids = tagged),
    },
    Key {
        name: "user",
        flag: "user",
        value: "USER",
        help: "Start workers as this user, by name or number, in all its groups; needs root. Without it, as the user sidetrack runs as",
        default: "",
        group: "Workers",
        kind: Kind::One,
        change: Change::Rolling,
        apply: |config, given| given.name().map(|user| config.user = Some(user)),
    },
    Key {
        name: "group",
        flag: "group",
        value: "GROUP",
        help: "Start workers in this group instead of the user's own; needs root",
        default: "",
        group: "Workers",
        kind: Kind::One,
        change: Change::Rolling,
        apply: |config, given| given.name().map(|group| config.group = Some(group)),
    },
    Key {
        name: "cwd",
        flag: "cwd",
        value: "FOLDER",
        help: "The folder in which workers run, and from which a command with a slash in it is found; that of sidetrack without it",
        default: "",
        group: "Workers",
        kind: Kind::One,
        change: Change::Rolling,
        apply: |config, given| given.text().map(|folder| config.folder = Some(folder.into())),
    },
    Key {
        name: "env",
        flag: "env",
        value: "NAME=VALUE",
        help: "A variable in the environment of workers, besides those of sidetrack's own; repeatable, in the file a table",
        default: "",
        group: "Workers",
        kind: Kind::Many,
        change: Change::Rolling,
        apply: |config, given| {
            for (name, value) in given.pairs()? {
                config.environment.retain(|(known, _)| *known != name);
                config.environment.push((name, value));
            }
            Ok(())
        },
    },
    Key {
        name: "window",
        flag: "window",
        value: "N",
        help: "Unacknowledged connections for each worker",
        default: "64",
        group: "Workers",
        kind: Kind::One,
        change: Change::Hot,
        apply: |config, given| given.number(1, 4096).map(|number| config.worker.window = number),
    },
    Key {
        name: "queue",
        flag: "queue",
        value: "N",
        help: "Connections waiting behind the window, for each worker",
        default: "8192",
        group: "Workers",
        kind: Kind::One,
        change: Change::Hot,
        apply: |config, given| given.number(0, 1 << 20).map(|number| config.worker.queue = number),
    },
    Key {
        name: "queue-wait",
        flag: "queue-wait",
        value: "TIME",
        help: "The longest wait in that queue; then another worker, or 503",
        default: "5s",
        group: "Workers",
        kind: Kind::One,
        change: Change::Hot,
        apply: |config, given| given.duration().map(|time| config.worker.queue_wait = time),
    },
    Key {
        name: "unresponsive-after",
        flag: "unresponsive-after",
        value: "TIME",
        help: "A worker that acknowledges nothing for so long gets no new connections until it does",
        default: "3s",
        group: "Workers",
        kind: Kind::One,
        change: Change::Hot,
        apply: |config, given| given.duration().map(|time| config.worker.unresponsive_after = time),
    },
    Key {
        name: "replace-after",
        flag: "replace-after",
        value: "TIME",
        help: "A worker that acknowledges nothing for so long is killed and started again",
        default: "30s",
        group: "Workers",
        kind: Kind::One,
        change: Change::Hot,
        apply: |config, given| given.duration().map(|time| config.worker.replace_after = time),
    },
    Key {
        name: "start-timeout",
        flag: "start-timeout",
        value: "TIME",
        help: "The longest time from a worker's start until it is ready",
        default: "60s",
        group: "Workers",
        kind: Kind::One,
        change: Change::Hot,
        apply: |config, given| given.duration().map(|time| config.worker.start_timeout = time),
    },
    Key {
        name: "restarts",
        flag: "restarts",
        value: "N",
        help: "Restarts in a row before a worker's slot is given up; 10 s of service start the count anew",
        default: "10",
        group: "Workers",
        kind: Kind::One,
        change: Change::Hot,
        apply: |config, given| {
            let number = given.number(0, 1_000_000)?;
            config.worker.restarts.budget = u32::try_from(number).unwrap_or(u32::MAX);
            config.worker.restarts.budget_untried = config.worker.restarts.budget.min(2);
            Ok(())
        },
    },
    Key {
        name: "retire-timeout",
        flag: "retire-timeout",
        value: "TIME",
        help: "How long a worker that another one has followed after a reload, or whose slot is gone, may keep its sessions and open connections; 5s with --watch",
        default: "5m",
        group: "Workers",
        kind: Kind::One,
        change: Change::Hot,
        apply: |config, given| given.duration().map(|time| config.retire_timeout = time),
    },
    Key {
        name: "drain-timeout",
        flag: "drain-timeout",
        value: "TIME",
        help: "After SIGTERM or SIGINT, how long workers may take to finish; then they are ended. A second signal ends them at once",
        default: "10s",
        group: "Workers",
        kind: Kind::One,
        change: Change::Hot,
        apply: |config, given| given.duration().map(|time| config.drain_timeout = time),
    },
    Key {
        name: "watch",
        flag: "watch",
        value: "PATH",
        help: "For development: when a file below PATH changes, new workers follow the old ones, one after another. Without PATH, the folder of the command's script. Not looked at: node_modules, target, __pycache__, dotfiles, logs",
        default: "",
        group: "Workers",
        kind: Kind::Optional,
        change: Change::Restart,
        apply: |config, given| {
            config.watch = match given.boolean() {
                Ok(wanted) => wanted.then(Vec::new),
                Err(_) => Some(given.list()?.into_iter().map(Into::into).collect()),
            };
            Ok(())
        },
    },
    Key {
        name: "policy-fuel",
        flag: "policy-fuel",
        value: "N",
        help: "What one decision of a policy may cost, in WebAssembly instructions or so; the default is worth about 1 ms",
        default: "8000000",
        group: "Policy limits",
        kind: Kind::One,
        change: Change::Hot,
        apply: |config, given| {
            given.number(1000, 1 << 40).map(|fuel| config.policy_settings.limits.decision_fuel = fuel as u64)
        },
    },
    Key {
        name: "policy-memory",
        flag: "policy-memory",
        value: "SIZE",
        help: "The most memory a policy may use",
        default: "16MiB",
        group: "Policy limits",
        kind: Kind::One,
        change: Change::Hot,
        apply: |config, given| {
            given.bytes(1 << 16, GIBIBYTE).map(|size| config.policy_settings.limits.memory = size)
        },
    },
    Key {
        name: "policy-trial",
        flag: "policy-trial",
        value: "TIME",
        help: "How long a policy version that has replaced another is watched for slowness and imbalance; 0s for not at all",
        default: "30s",
        group: "Policy limits",
        kind: Kind::One,
        change: Change::Hot,
        apply: |config, given| given.duration().map(|time| config.policy_settings.trial = time),
    },
    Key {
        name: "policy-watch",
        flag: "no-policy-watch",
        value: "BOOL",
        help: "Do not load policy files again when they change; SIGHUP and `sidetrack policy set` still do",
        default: "true",
        group: "Policy limits",
        kind: Kind::Off,
        change: Change::Restart,
        apply: |config, given| given.boolean().map(|watch| config.policy_watch = watch),
    },
    Key {
        name: "policy-cache",
        flag: "no-policy-cache",
        value: "BOOL",
        help: "Do not keep compiled policies in the cache folder of this user",
        default: "true",
        group: "Policy limits",
        kind: Kind::Off,
        change: Change::Hot,
        apply: |config, given| given.boolean().map(|cache| config.policy_settings.cache = cache),
    },
    Key {
        name: "log",
        flag: "log",
        value: "FILTER",
        help: "What to log: error, warn, info, debug, trace, or target=level pairs",
        default: "info",
        group: "Output",
        kind: Kind::One,
        change: Change::Hot,
        apply: |config, given| {
            let text = given.text()?;
            trace::filter(&text)?;
            config.log = text;
            Ok(())
        },
    },
    Key {
        name: "log-format",
        flag: "log-format",
        value: "FORMAT",
        help: "How log lines look: human or json",
        default: "human",
        group: "Output",
        kind: Kind::One,
        change: Change::Restart,
        apply: |config, given| {
            given.parsed::<trace::Format>("human or json").map(|format| config.log_format = format)
        },
    },
    Key {
        name: "otlp-endpoint",
        flag: "otlp-endpoint",
        value: "URL",
        help: "Send traces to this OpenTelemetry collector (OTLP over HTTP), such as http://127.0.0.1:4318; in builds with the feature otlp",
        default: "",
        group: "Output",
        kind: Kind::One,
        change: Change::Restart,
        apply: |config, given| given.text().map(|url| config.otlp_endpoint = Some(url)),
    },
    Key {
        name: "otlp-sample",
        flag: "otlp-sample",
        value: "SHARE",
        help: "The share of connections that are traced, from 0 to 1, drawn by chance",
        default: "1",
        group: "Output",
        kind: Kind::One,
        change: Change::Restart,
        apply: |config, given| given.share().map(|share| config.otlp_sample = share),
    },
    Key {
        name: "access-log",
        flag: "access-log",
        value: "PATH",
        help: "Write a line of JSON for each decision to this file, or to standard output with -. It is opened anew after SIGHUP and when it has been moved",
        default: "",
        group: "Output",
        kind: Kind::One,
        change: Change::Restart,
        apply: |config, given| given.text().map(|path| config.access_log = Some(path.into())),
    },
    Key {
        name: "access-log-sample",
        flag: "access-log-sample",
        value: "SHARE",
        help: "The share of decisions that get a line, from 0 to 1, drawn by chance",
        default: "1",
        group: "Output",
        kind: Kind::One,
        change: Change::Restart,
        apply: |config, given| given.share().map(|share| config.access_log_sample = share),
    },
    Key {
        name: "access-log-keep",
        flag: "access-log-keep",
        value: "WHAT",
        help: "What the access log says as it is and not under a pseudonym: session, peer, or query:NAME, with which it writes queries too; repeatable",
        default: "",
        group: "Output",
        kind: Kind::Many,
        change: Change::Restart,
        apply: |config, given| {
            let keep = |text: &String| match text.parse() {
                Ok(keep @ (Keep::Session | Keep::Peer | Keep::Query(_))) => Ok(keep),
                _ => Err(format!("expected session, peer or query:NAME, found \"{text}\"")),
            };
            config.access_log_keep = given.list()?.iter().map(keep).collect::<Result<_, _>>()?;
            Ok(())
        },
    },
];
