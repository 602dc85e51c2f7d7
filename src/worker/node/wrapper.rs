//! Tools that start Node in a further process. They are Node programs themselves, so the channel
//! ends in them and never reaches the server.

use std::path::Path;

const WRAPPERS: [&str; 9] = ["npm", "npx", "yarn", "pnpm", "pnpx", "nodemon", "pm2", "tsx", "ts-node-dev"];

/// The tool's name, if the command is one.
#[must_use]
pub fn wrapper(command: &[String]) -> Option<&str> {
    let name = Path::new(command.first()?).file_name()?.to_str()?;
    if name == "node" || name == "nodejs" {
        let options = command[1..].iter().take_while(|word| word.starts_with('-'));
        return options.into_iter().any(|word| word.starts_with("--watch")).then_some("node --watch");
    }
    WRAPPERS.contains(&name).then_some(name)
}

/// What to do about it, in one sentence; with the exact command where `package.json` in `folder`
/// says what the tool would start.
#[must_use]
pub fn advice(name: &str, folder: &Path) -> String {
    let start = std::fs::read_to_string(folder.join("package.json"))
        .ok()
        .and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok())
        .and_then(|package| package["scripts"]["start"].as_str().map(str::to_owned))
        .unwrap_or_else(|| "node server.js".to_owned());
    format!(
        "{name} starts the server in a further process and keeps the worker channel to itself; \
         start the server directly: sidetrack run -- {start}"
    )
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
        let package = r#"{"scripts":{"start":"node --enable-source-maps dist/main.js"}}"#;
        std::fs::write(folder.path().join("package.json"), package).unwrap();
        assert!(
            advice("npm", folder.path()).ends_with("sidetrack run -- node --enable-source-maps dist/main.js")
        );
    }
}
