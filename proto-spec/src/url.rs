//! `icet://host[:port]/media/path[?key=…&tracker=…]`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::DEFAULT_PORT;
use crate::key::PeerKey;
use crate::path::{MediaPath, PathError};

/// A link to a media on a tracker, or (without a path) to a tracker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IcetUrl {
    /// Host name, IPv4 address, or IPv6 address without its brackets.
    pub host: String,
    /// Port, 4237 if the link names none.
    pub port: u16,
    /// The media, if the link names one.
    pub path: Option<MediaPath>,
    /// The publisher's key that the link pins.
    pub key: Option<PeerKey>,
    /// The tracker's key that the link pins.
    pub tracker: Option<PeerKey>,
}

/// Why a text is not an `icet://` link.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UrlError {
    /// Another scheme, or none.
    #[error("a link begins with icet:// , as in icet://tracker.example/music/song.opus")]
    Scheme,
    /// No host, or one with characters that no host has.
    #[error("the link names no usable host: icet://HOST[:PORT]/PATH")]
    Host,
    /// A port that is not 1 to 65535.
    #[error("the port of a link is a number from 1 to 65535")]
    Port,
    /// A bad media path.
    #[error("the link's media path: {0}")]
    Path(#[from] PathError),
    /// `key=` or `tracker=` is not a key.
    #[error("the link's {0}= must be 64 hexadecimal digits")]
    Key(&'static str),
    /// A fragment, a user name, or a parameter that appears twice.
    #[error("the link has a part that icet:// links do not have: {0}")]
    Extra(&'static str),
}

impl FromStr for IcetUrl {
    type Err = UrlError;

    fn from_str(s: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = s.split_once("://").ok_or(UrlError::Scheme)?;
        if !scheme.eq_ignore_ascii_case("icet") {
            return Err(UrlError::Scheme);
        }
        if rest.contains('#') {
            return Err(UrlError::Extra("a fragment (#)"));
        }
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(r, q)| (r, Some(q)));
        let (authority, path) = rest.split_once('/').map_or((rest, ""), |(a, p)| (a, p));
        if authority.contains('@') {
            return Err(UrlError::Extra("a user name (@)"));
        }
        let (host, port) = split_authority(authority)?;
        let path = if path.is_empty() { None } else { Some(MediaPath::from_url_path(path)?) };
        let (mut key, mut tracker) = (None, None);
        for pair in query.into_iter().flat_map(|q| q.split('&')).filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (slot, name) = match name {
                "key" => (&mut key, "key"),
                "tracker" => (&mut tracker, "tracker"),
                _ => continue, // a later version's parameter
            };
            if slot.replace(value.parse().map_err(|_| UrlError::Key(name))?).is_some() {
                return Err(UrlError::Extra("a parameter twice"));
            }
        }
        Ok(IcetUrl { host, port, path, key, tracker })
    }
}

fn split_authority(authority: &str) -> Result<(String, u16), UrlError> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, tail) = rest.split_once(']').ok_or(UrlError::Host)?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| UrlError::Host)?;
        match tail.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if tail.is_empty() => (host, None),
            None => return Err(UrlError::Port),
        }
    } else {
        let (host, port) = authority.split_once(':').map_or((authority, None), |(h, p)| (h, Some(p)));
        if host.is_empty()
            || host.len() > 253
            || !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        {
            return Err(UrlError::Host);
        }
        (host, port)
    };
    let port = match port {
        None => DEFAULT_PORT,
        Some(p) if p.bytes().all(|b| b.is_ascii_digit()) => {
            p.parse().ok().filter(|p| *p != 0).ok_or(UrlError::Port)?
        }
        Some(_) => return Err(UrlError::Port),
    };
    Ok((host.to_ascii_lowercase(), port))
}

impl IcetUrl {
    /// `host:port`, with brackets around an IPv6 address: what a resolver takes.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for IcetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "icet://{}", self.authority())?;
        if let Some(path) = &self.path {
            write!(f, "/{}", path.to_url_path())?;
        }
        let mut sep = '?';
        for (name, key) in [("key", self.key), ("tracker", self.tracker)] {
            if let Some(key) = key {
                write!(f, "{sep}{name}={key}")?;
                sep = '&';
            }
        }
        Ok(())
    }
}
