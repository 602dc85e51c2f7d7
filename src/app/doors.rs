//! Where somebody may come in: clients, workers that join, whoever gives orders. Opened anew, or as the
//! program before has left them.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::inheritance::Inheritance;
use crate::admin::{self, Admin, Token};
use crate::config::{self, Config, Problems};
use crate::listener::{self, Bound, Servers};
use crate::pool;
use crate::systemd::Passed;
use crate::worker::JoinSocket;

/// The servers, on the sockets that were passed and on others.
pub fn servers(config: &Config, passed: &mut Passed) -> Result<Servers, Problems> {
    let defer = config.peek.timeout;
    let opened = adopt(passed.listeners(), defer)?;
    Servers::new(&config.listens(), opened, config.opening, defer).map_err(bind_problems)
}

/// The join sockets, by pool.
pub fn joins(
    config: &Config,
    passed: &mut Passed,
    before: &mut Option<Inheritance>,
) -> Result<Vec<Option<JoinSocket>>, Problems> {
    let mut joins = Vec::new();
    for (name, config) in config.each() {
        let trouble = |error: io::Error| Problems::one(pool::place(&name, "join-socket"), error.to_string());
        joins.push(match (config.join(), &mut *before) {
            (None, _) => None,
            (Some(settings), Some(before)) => before.join(&name, &settings)?,
            (Some(settings), None) => {
                let opened = passed.named("join-socket", &settings.path);
                Some(JoinSocket::bind(&settings, opened).map_err(trouble)?)
            }
        });
    }
    Ok(joins)
}

/// The admin interface, where it is wanted, and the address of its page if that is new.
pub async fn admin(
    config: &Config,
    passed: &mut Passed,
    before: &mut Option<Inheritance>,
) -> Result<(Admin, Option<String>), Problems> {
    if let Some(before) = before {
        return Ok((before.admin(token(config)?)?, None));
    }
    let mut admin = Admin::default();
    let path = match &config.admin {
        config::Admin::Off => None,
        config::Admin::At(path) => Some(path.clone()),
        config::Admin::Default => {
            admin::own().inspect_err(|error| tracing::warn!(%error, "no admin socket")).ok()
        }
    };
    if let Some(path) = path {
        let trouble = |error: io::Error| {
            let text = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "somebody listens there, or it is another file; name another path with --admin".to_owned()
                }
                _ => error.to_string(),
            };
            Problems::one("admin", format!("{}: {text}", path.display()))
        };
        admin.bind(&path, passed.named("admin", &path)).map_err(trouble)?;
    }
    let Some(address) = config.admin_listen else { return Ok((admin, None)) };
    let token = token(config)?;
    let open = token.is_none();
    let trouble = |error| Problems::one("admin-listen", format!("{address}: {error}"));
    let page = format!("http://{}/", admin.listen(address, token).await.map_err(trouble)?);
    tracing::info!(page, "admin interface over TCP");
    if open {
        tracing::info!("every process on this machine may act there; admin-token-file asks for a token");
    }
    Ok((admin, Some(page)))
}

/// What whoever asks over TCP must know.
fn token(config: &Config) -> Result<Option<Token>, Problems> {
    let token = config.admin_token_file.as_deref().map(Token::keep).transpose();
    token.map_err(|error| Problems::one("admin-token-file", error.to_string()))
}

/// Sockets that were opened for us.
fn adopt(descriptors: Vec<OwnedFd>, defer: Duration) -> Result<Vec<Bound>, Problems> {
    let mut problems = Problems::default();
    let adopted = descriptors.into_iter().filter_map(|descriptor| {
        let problem = |error: io::Error| problems.add("listen", format!("a passed socket: {error}"));
        Bound::adopt(descriptor, defer).map_err(problem).ok()
    });
    let adopted = adopted.collect();
    problems.into_result(adopted)
}

fn bind_problems(errors: Vec<listener::BindError>) -> Problems {
    let mut problems = Problems::default();
    for error in errors {
        problems.add("listen", error.to_string());
    }
    problems
}
