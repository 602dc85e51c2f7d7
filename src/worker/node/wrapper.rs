//! Tools that start Node in a further process. They are Node programs themselves, so the channel
//! ends in them and never reaches the server.

use std::path::Path;

const WRAPPERS: [&str; 11] = [
    "npm",
    "npx",
    "yarn",
    "pnpm",
    "pnpx",
    "nodemon",
    "pm2",
    "pm2-runtime",
    "tsx",
    "ts-node-dev",
    "cross-env",
];

/// The tool's name, if the command is one.
#[must_use]
pub fn wrapper(command: &[String]) -> Option<&str> {
    let name = program(command.first()?);
    if name == "node" || name == "nodejs" {
        let options = command[1..].iter().take_while(|word| word.starts_with('-'));
        return options.into_iter().any(|word| word.starts_with("--watch")).then_some("node --watch");
    }
    WRAPPERS.contains(&name).then_some(name)
}

/// What to do about it, in one sentence; with the exact command where that can be made out, also from the
/// scripts of `package.json` in `folder`.
#[must_use]
pub fn advice(name: &str, command: &[String], folder: &Path) -> String {
    let instead = match direct(command, folder, 0) {
        Direct::Command { environment, words } => {
            let environment: String = environment.iter().map(|pair| format!("--env {pair} ")).collect();
            format!("start the server directly: sidetrack run {environment}-- {}", words.join(" "))
        }
        Direct::Script(script) => {
            format!("start the server directly, which `{script}` does in the end: sidetrack run -- node FILE")
        }
        Direct::Unknown => "start the server directly: sidetrack run -- node server.js".to_owned(),
    };
    let watching = ["nodemon", "node --watch", "ts-node-dev"].contains(&name);
    let watch = if watching { "; `sidetrack run --watch` restarts it when its code changes" } else { "" };
    format!(
        "{name} starts the server in a further process and keeps the worker channel to itself; {instead}{watch}"
    )
}

/// What a tool starts in the end.
enum Direct {
    Command {
        /// `NAME=value` each.
        environment: Vec<String>,
        words: Vec<String>,
    },
    /// A script that takes a shell.
    Script(String),
    Unknown,
}

impl Direct {
    fn command(words: Vec<String>) -> Self {
        Self::Command { environment: Vec::new(), words }
    }

    /// The same with more in its environment.
    fn with(self, set: &[String]) -> Self {
        match self {
            Self::Command { environment, words } => {
                Self::Command { environment: [set, &environment].concat(), words }
            }
            other => other,
        }
    }
}

/// How deep tools may start tools.
const DEEPEST: usize = 8;

fn direct(words: &[String], folder: &Path, depth: usize) -> Direct {
    let Some((first, rest)) = words.split_first().filter(|_| depth <= DEEPEST) else {
        return Direct::Unknown;
    };
    let options = rest.iter().take_while(|word| word.starts_with('-')).count();
    let operands = &rest[options..];
    match program(first) {
        "npm" | "yarn" | "pnpm" => of_script(script(operands), folder, depth),
        "npx" | "pnpx" => direct(operands, folder, depth + 1),
        "cross-env" => assigned(rest, folder, depth),
        "tsx" => {
            let words = rest.iter().filter(|word| *word != "watch").cloned();
            Direct::command(["node", "--import", "tsx"].map(str::to_owned).into_iter().chain(words).collect())
        }
        "nodemon" | "pm2" | "pm2-runtime" => {
            let file: Vec<_> = operands.iter().skip_while(|word| *word == "start").cloned().collect();
            match file.first() {
                Some(name) if [".js", ".mjs", ".cjs"].iter().any(|end| name.ends_with(end)) => {
                    Direct::command(std::iter::once("node".to_owned()).chain(file).collect())
                }
                _ => Direct::Unknown,
            }
        }
        "ts-node-dev" => Direct::Unknown,
        "node" | "nodejs" => {
            Direct::command(words.iter().filter(|word| !word.starts_with("--watch")).cloned().collect())
        }
        _ => Direct::command(words.to_vec()),
    }
}

/// What one of the scripts of `package.json` starts.
fn of_script(name: &str, folder: &Path, depth: usize) -> Direct {
    let package = std::fs::read_to_string(folder.join("package.json")).ok();
    let package = package.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    let script = package.as_ref().and_then(|package| package["scripts"][name].as_str());
    match script {
        Some(script) if script.contains(|sign: char| "&|;<>$`\"'()*\\\n".contains(sign)) => {
            Direct::Script(script.to_owned())
        }
        Some(script) => {
            let words: Vec<_> = script.split_whitespace().map(str::to_owned).collect();
            assigned(&words, folder, depth)
        }
        None => Direct::Unknown,
    }
}

/// A command behind what it finds in its environment.
fn assigned(words: &[String], folder: &Path, depth: usize) -> Direct {
    let (set, words) = words.split_at(words.iter().take_while(|word| is_assignment(word)).count());
    direct(words, folder, depth + 1).with(set)
}

/// The script's name in what follows the tool's: `start`, `run dev`, and with some tools `dev`.
fn script(words: &[String]) -> &str {
    match words {
        [run, name, ..] if run == "run" || run == "run-script" => name,
        [name, ..] => name,
        [] => "start",
    }
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
    })
}

fn program(word: &str) -> &str {
    Path::new(word).file_name().and_then(|name| name.to_str()).unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &str) -> Vec<String> {
        words.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn knows_its_wrappers() {
        assert_eq!(wrapper(&command("npm start")), Some("npm"));
        assert_eq!(wrapper(&command("/usr/bin/yarn node server.js")), Some("yarn"));
        assert_eq!(wrapper(&command("node --watch server.js")), Some("node --watch"));
        assert_eq!(wrapper(&command("node server.js --watch")), None);
        assert_eq!(wrapper(&command("python -m app")), None);
        assert_eq!(wrapper(&[]), None);
    }

    #[test]
    fn the_advice_names_the_real_command() {
        let folder = tempfile::tempdir().unwrap();
        let package = r#"{"scripts":{
            "start": "node --enable-source-maps dist/main.js",
            "prod": "NODE_ENV=production node server.js",
            "dev": "nodemon server.js",
            "all": "cross-env A=1 B=2 tsx src/main.ts",
            "build": "tsc && node dist/main.js",
            "loop": "npm run loop"
        }}"#;
        std::fs::write(folder.path().join("package.json"), package).unwrap();
        for (words, expected) in [
            ("npm start", "sidetrack run -- node --enable-source-maps dist/main.js"),
            ("npm --silent run prod", "sidetrack run --env NODE_ENV=production -- node server.js"),
            ("yarn dev", "sidetrack run -- node server.js"),
            ("pnpm run all", "sidetrack run --env A=1 --env B=2 -- node --import tsx src/main.ts"),
            ("npx tsx watch server.ts", "sidetrack run -- node --import tsx server.ts"),
            ("pm2 start app.js", "sidetrack run -- node app.js"),
            ("node --watch server.js", "sidetrack run -- node server.js; `sidetrack run --watch`"),
            ("npm run build", "`tsc && node dist/main.js` does in the end: sidetrack run -- node FILE"),
            ("npm run loop", "sidetrack run -- node server.js"),
            ("npm run nowhere", "sidetrack run -- node server.js"),
        ] {
            let command = command(words);
            let said = advice(wrapper(&command).unwrap(), &command, folder.path());
            assert!(said.contains(expected), "{words}: {said}");
        }
    }
}
