//! Values as given in a flag or in the file, read as what a setting needs.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use crate::listener::Listen;
use crate::policy::PolicyLink;
use crate::types::Opening;

/// A value as somebody wrote it.
#[derive(Debug, Clone)]
pub enum Given {
    /// A flag's text.
    Text(String),
    /// A flag that may be repeated.
    List(Vec<String>),
    /// From the file.
    Value(toml::Value),
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "\"{text}\""),
            Self::List(list) => write!(f, "{list:?}"),
            Self::Value(value) => write!(f, "{value}"),
        }
    }
}

impl Given {
    /// As JSON, for programs.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::List(list) => list.as_slice().into(),
            // TOML has numbers that JSON has not.
            Self::Value(value) => serde_json::to_value(value).unwrap_or_else(|_| value.to_string().into()),
        }
    }

    fn expected(&self, what: &str) -> String {
        format!("expected {what}, found {self}")
    }

    /// A string, or nothing.
    fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Value(toml::Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Text that is made into something else, with that thing's own words when it is not.
    pub fn parsed<T>(&self, what: &str) -> Result<T, String>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let text = self.as_text().ok_or_else(|| self.expected(what))?;
        text.parse().map_err(|error: T::Err| error.to_string())
    }

    pub fn text(&self) -> Result<String, String> {
        self.as_text().map(str::to_owned).ok_or_else(|| self.expected("text"))
    }

    /// A name, or a number that stands for one.
    pub fn name(&self) -> Result<String, String> {
        match self {
            Self::Value(toml::Value::Integer(number)) if *number >= 0 => Ok(number.to_string()),
            _ => self
                .as_text()
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
                .ok_or_else(|| self.expected("a name or a number")),
        }
    }

    /// Names with their values: `NAME=VALUE`, one or several, or in the file a table.
    pub fn pairs(&self) -> Result<Vec<(String, String)>, String> {
        let what = "NAME=VALUE, or in the file a table such as { NAME = \"VALUE\" }";
        let sound = |name: &str, value: &str| {
            !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
        };
        let pairs: Option<Vec<_>> = match self {
            Self::Value(toml::Value::Table(table)) => {
                let pair =
                    |(name, value): (&String, &toml::Value)| Some((name.clone(), value.as_str()?.to_owned()));
                table.iter().map(pair).collect()
            }
            _ => {
                let list = self.list().map_err(|_| self.expected(what))?;
                let pair = |text: &String| {
                    text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
                };
                list.iter().map(pair).collect()
            }
        };
        pairs
            .filter(|pairs| pairs.iter().all(|(name, value)| sound(name, value)))
            .ok_or_else(|| self.expected(what))
    }

    /// An address of the admin interface. A name would leave open who can connect.
    pub fn admin_address(&self) -> Result<SocketAddr, String> {
        let what = "an IP address and a port, such as \"127.0.0.1:9000\" or \"[::1]:9000\"";
        let address = self.as_text().and_then(|text| match text.strip_prefix("localhost:") {
            Some(port) => port.parse().ok().map(|port| (Ipv4Addr::LOCALHOST, port).into()),
            None => text.parse().ok(),
        });
        address.ok_or_else(|| self.expected(what))
    }

    /// A whole number within bounds.
    pub fn number(&self, least: u64, most: u64) -> Result<usize, String> {
        let number = match self {
            Self::Value(toml::Value::Integer(number)) => u64::try_from(*number).ok(),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        };
        number
            .filter(|number| (least..=most).contains(number))
            .and_then(|number| usize::try_from(number).ok())
            .ok_or_else(|| self.expected(&format!("a whole number from {least} to {most}")))
    }

    /// A part of the whole.
    pub fn share(&self) -> Result<f64, String> {
        let share = match self {
            Self::Value(toml::Value::Float(share)) => Some(*share),
            Self::Value(toml::Value::Integer(share)) => u8::try_from(*share).ok().map(f64::from),
            _ => self.as_text().and_then(|text| text.parse().ok()),
        };
        share
            .filter(|share| (0.0..=1.0).contains(share))
            .ok_or_else(|| self.expected("a share from 0 to 1, such as 0.01 for one in a hundred"))
    }

    /// A length of time with its unit.
    pub fn duration(&self) -> Result<Duration, String> {
        let what = "a time with a unit, such as \"300ms\", \"10s\" or \"2m\"";
        let text = self.as_text().ok_or_else(|| self.expected(what))?;
        humantime::parse_duration(text).map_err(|_| self.expected(what))
    }

    /// A number of bytes: plain, or with the unit KiB or MiB.
    pub fn bytes(&self, least: u64, most: u64) -> Result<usize, String> {
        let number = match self {
            Self::Value(toml::Value::Integer(number)) => u64::try_from(*number).ok(),
            _ => self.as_text().and_then(|text| {
                let digits = text.trim_end_matches(char::is_alphabetic);
                let unit = match &text[digits.len()..] {
                    "" | "B" => 1,
                    "KiB" => 1024,
                    "MiB" => 1024 * 1024,
                    _ => return None,
                };
                digits.trim_end().parse::<u64>().ok()?.checked_mul(unit)
            }),
        };
        number
            .filter(|number| (least..=most).contains(number))
            .and_then(|number| usize::try_from(number).ok())
            .ok_or_else(|| self.expected(&format!("a size from {least} to {most} bytes, such as \"16KiB\"")))
    }

    pub fn boolean(&self) -> Result<bool, String> {
        match self {
            Self::Value(toml::Value::Boolean(value)) => Ok(*value),
            Self::Text(text) => text.parse().map_err(|_| self.expected("true or false")),
            _ => Err(self.expected("true or false")),
        }
    }

    /// Policies in order: each a text, or in the file a table `{ use = "NAME", config = {…} }`.
    pub fn links(&self) -> Result<Vec<PolicyLink>, String> {
        let what = "a policy, or a list of policies such as [\"sticky-cookie\", { use = \"hash\", config = { key = \"path\" } }]";
        let text = |value: &toml::Value| match value {
            toml::Value::String(text) => Some(text.clone()),
            toml::Value::Table(table) => {
                let known = table.keys().all(|key| key == "use" || key == "config");
                let name = table.get("use").and_then(toml::Value::as_str).filter(|_| known)?;
                let config = table.get("config").map(serde_json::to_string).transpose().ok()?;
                Some(format!("{name}{}", config.unwrap_or_default()))
            }
            _ => None,
        };
        let texts = match self {
            Self::Value(toml::Value::Array(values)) => values.iter().map(text).collect::<Option<Vec<_>>>(),
            Self::Value(value @ toml::Value::Table(_)) => text(value).map(|text| vec![text]),
            _ => self.list().ok(),
        };
        let texts = texts.filter(|texts| !texts.is_empty()).ok_or_else(|| self.expected(what))?;
        texts.iter().map(|text| text.parse::<PolicyLink>().map_err(|error| error.to_string())).collect()
    }

    /// Addresses to listen on: each a text, or in the file a table `{ address = "…", proxy-protocol = true }`.
    pub fn listens(&self) -> Result<Vec<Listen>, String> {
        let what = "an address, or a list of addresses such as [\":3000\", { address = \":3001\", proxy-protocol = true }]";
        let parse = |text: &str| text.parse::<Listen>().map_err(|error| error.to_string());
        let listen = |value: &toml::Value| match value {
            toml::Value::String(text) => parse(text),
            toml::Value::Table(table) => {
                let known = table.keys().all(|key| key == "address" || key == "proxy-protocol");
                let address = table.get("address").and_then(toml::Value::as_str).filter(|_| known);
                let mut listen = parse(address.ok_or_else(|| self.expected(what))?)?;
                listen.opening = match table.get("proxy-protocol") {
                    None => None,
                    Some(toml::Value::Boolean(true)) => Some(Opening::Preamble),
                    Some(toml::Value::Boolean(false)) => Some(Opening::Request),
                    Some(_) => return Err(self.expected(what)),
                };
                Ok(listen)
            }
            _ => Err(self.expected(what)),
        };
        match self {
            Self::Value(toml::Value::Array(values)) => values.iter().map(listen).collect(),
            Self::Value(value) => listen(value).map(|listen| vec![listen]),
            Self::Text(text) => parse(text).map(|listen| vec![listen]),
            Self::List(list) => list.iter().map(|text| parse(text)).collect(),
        }
    }

    /// Networks such as `10.0.0.0/8`; an address is a network of one.
    pub fn networks(&self) -> Result<Vec<IpNet>, String> {
        let what = "networks such as \"10.0.0.0/8\" or \"::1\"";
        let network = |text: &String| {
            let one = || text.parse().ok().map(|ip: IpAddr| IpNet::from(ip));
            text.parse().ok().or_else(one).ok_or_else(|| format!("expected {what}, found \"{text}\""))
        };
        self.list().map_err(|_| self.expected(what))?.iter().map(network).collect()
    }

    /// A single policy.
    pub fn link(&self) -> Result<PolicyLink, String> {
        match <[PolicyLink; 1]>::try_from(self.links()?) {
            Ok([link]) => Ok(link),
            Err(_) => Err(self.expected("a single policy")),
        }
    }

    /// A list of texts; a single text is a list of one.
    pub fn list(&self) -> Result<Vec<String>, String> {
        match self {
            Self::Text(text) | Self::Value(toml::Value::String(text)) => Ok(vec![text.clone()]),
            Self::List(list) => Ok(list.clone()),
            Self::Value(toml::Value::Array(values)) => {
                let text = |value: &toml::Value| value.as_str().map(str::to_owned);
                values.iter().map(text).collect::<Option<_>>().ok_or_else(|| self.expected("a list of texts"))
            }
            Self::Value(_) => Err(self.expected("a list of texts")),
        }
    }
}
