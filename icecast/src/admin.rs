//! Icecast's admin interface: `/admin/stats`, `/admin/listclients`, `/admin/killclient`, and `/status-json.xsl`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Longest answer: 50,000 listeners with short names, or a few thousand with long ones.
const LARGEST: usize = 8 << 20;
/// Longest user agent that is kept, in bytes.
const AGENT: usize = 256;

/// Of a mount's name in a query, all but these is escaped.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_').remove(b'~');

/// Why the server could not be asked.
#[derive(Debug, Error)]
pub enum AdminError {
    /// No connection.
    #[error("no Icecast server answers at {0}: {1}")]
    Unreachable(String, String),
    /// It says nothing.
    #[error("the server at {0} says nothing")]
    Silent(String),
    /// It does not take the password.
    #[error(
        "the server does not take this user and password: they are <admin-user> and <admin-password> of its configuration"
    )]
    Password,
    /// The mount is not there (any more).
    #[error("there is no mount {0} now")]
    NoMount(String),
    /// It answers, but not as Icecast does.
    #[error("the answer to {path} is not Icecast's: {why}")]
    Answer {
        /// What was asked for.
        path: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

/// A server, and who we are there.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    authority: String,
    dial: String,
    user: String,
    password: String,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.authority)
    }
}

/// Where a server is: `http://HOST[:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    authority: String,
    dial: String,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(s: &str) -> Result<Address, String> {
        let shape = || format!("{s:?}: a server is http://HOST[:PORT], without a path");
        let rest = s.strip_prefix("http://").ok_or_else(shape)?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let odd = |c: char| c.is_control() || c.is_whitespace() || "/@?#".contains(c);
        if authority.is_empty() || authority.contains(odd) {
            return Err(shape());
        }
        // Of an IPv6 address in brackets, what is behind them; else what is behind the last colon.
        let port = match authority.rsplit_once(']') {
            Some((_, rest)) => rest.strip_prefix(':'),
            None => authority.rsplit_once(':').map(|(_, port)| port),
        };
        let dial = match port {
            Some(port) if port.parse::<u16>().is_ok_and(|p| p != 0) => authority.to_owned(),
            Some(_) => return Err(shape()),
            None => format!("{authority}:80"),
        };
        Ok(Address { authority: authority.to_owned(), dial })
    }
}

/// A mount with a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its name, `/live.ogg`.
    pub name: String,
    /// Media type of its source.
    pub media_type: String,
    /// Listeners, relays among them.
    pub listeners: u64,
    /// The most that the server lets in; none: unlimited.
    pub most: Option<u64>,
    /// Where the server says that it is listened to.
    pub url: String,
}

impl Mount {
    /// Whether its source sends Ogg.
    #[must_use]
    pub fn is_ogg(&self) -> bool {
        let kind = self.media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        matches!(kind.as_str(), "application/ogg" | "audio/ogg" | "video/ogg" | "audio/opus")
    }
}

/// One who listens at the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The server's number of the connection.
    pub id: u64,
    /// From where.
    pub ip: IpAddr,
    /// What the player calls itself, as it says; a stranger's text.
    pub agent: String,
    /// Since when.
    pub connected: Duration,
}

fn document<'a>(path: &'static str, xml: &'a str) -> Result<roxmltree::Document<'a>, AdminError> {
    roxmltree::Document::parse(xml).map_err(|e| AdminError::Answer { path, why: e.to_string() })
}

const STATS: &str = "/admin/stats";
const CLIENTS: &str = "/admin/listclients";
const KILL: &str = "/admin/killclient";
const STATUS: &str = "/status-json.xsl";

/// Reads `/admin/stats`.
///
/// # Errors
/// [`AdminError::Answer`].
pub fn parse_mounts(xml: &str) -> Result<Vec<Mount>, AdminError> {
    let doc = document(STATS, xml)?;
    let root = doc.root_element();
    if !root.has_tag_name("icestats") {
        return Err(AdminError::Answer { path: STATS, why: "it has no icestats".to_owned() });
    }
    let source = |n: roxmltree::Node<'_, '_>| {
        let value = |name: &str| {
            n.children().find(|c| c.has_tag_name(name)).and_then(|c| c.text()).unwrap_or_default().to_owned()
        };
        Some(Mount {
            name: n.attribute("mount").filter(|m| m.starts_with('/'))?.to_owned(),
            media_type: value("server_type"),
            listeners: value("listeners").parse().unwrap_or(0),
            most: value("max_listeners").parse().ok(),
            url: value("listenurl"),
        })
    };
    Ok(root.children().filter(|n| n.has_tag_name("source")).filter_map(source).collect())
}

/// Reads `/admin/listclients`. What has no number or address is left out.
///
/// # Errors
/// [`AdminError::Answer`].
pub fn parse_listeners(xml: &str) -> Result<Vec<Listener>, AdminError> {
    let doc = document(CLIENTS, xml)?;
    let source = doc.root_element().children().find(|n| n.has_tag_name("source"));
    let source =
        source.ok_or_else(|| AdminError::Answer { path: CLIENTS, why: "it has no source".to_owned() })?;
    let listener = |n: roxmltree::Node<'_, '_>| {
        let value = |name: &str| n.children().find(|c| c.has_tag_name(name)).and_then(|c| c.text());
        let mut agent = value("UserAgent").unwrap_or_default().to_owned();
        let end = (0..=AGENT).rev().find(|i| agent.is_char_boundary(*i)).unwrap_or(0);
        agent.truncate(end);
        Some(Listener {
            id: value("ID")?.trim().parse().ok()?,
            ip: value("IP")?.trim().parse::<IpAddr>().ok()?.to_canonical(),
            agent,
            connected: Duration::from_secs(
                value("Connected").and_then(|s| s.trim().parse().ok()).unwrap_or(0),
            ),
        })
    };
    Ok(source.children().filter(|n| n.has_tag_name("listener")).filter_map(listener).collect())
}

/// Reads the answer to `/admin/killclient`: whether there was such a listener.
///
/// # Errors
/// [`AdminError::Answer`].
pub fn parse_killed(xml: &str) -> Result<bool, AdminError> {
    let doc = document(KILL, xml)?;
    let done = doc.root_element().children().find(|n| n.has_tag_name("return")).and_then(|n| n.text());
    match done.map(str::trim) {
        Some("1") => Ok(true),
        Some("0") => Ok(false),
        _ => Err(AdminError::Answer { path: KILL, why: "it has no return".to_owned() }),
    }
}

impl Server {
    /// A server and the user and password of its `<authentication>`.
    #[must_use]
    pub fn new(address: Address, user: String, password: String) -> Server {
        Server { authority: address.authority, dial: address.dial, user, password }
    }

    /// The URL of a mount there.
    #[must_use]
    pub fn url(&self, mount: &str) -> String {
        format!("http://{}{mount}", self.authority)
    }

    /// Mounts that have a source now.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn mounts(&self) -> Result<Vec<Mount>, AdminError> {
        parse_mounts(&self.get(STATS, STATS).await?)
    }

    /// Who listens to a mount.
    ///
    /// # Errors
    /// [`AdminError`]; [`AdminError::NoMount`] if its source has gone.
    pub async fn listeners(&self, mount: &str) -> Result<Vec<Listener>, AdminError> {
        let xml = self.get(CLIENTS, &format!("{CLIENTS}?mount={}", utf8_percent_encode(mount, QUERY))).await;
        parse_listeners(&xml.map_err(|e| gone(e, mount))?)
    }

    /// Sends a listener away; false: it had gone already.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn send_away(&self, mount: &str, id: u64) -> Result<bool, AdminError> {
        let mount_name = utf8_percent_encode(mount, QUERY);
        let xml = self.get(KILL, &format!("{KILL}?mount={mount_name}&id={id}")).await;
        parse_killed(&xml.map_err(|e| gone(e, mount))?)
    }

    /// What the server tells everybody, as JSON.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn status(&self) -> Result<serde_json::Value, AdminError> {
        let text = self.get(STATUS, STATUS).await?;
        serde_json::from_str(&text).map_err(|e| AdminError::Answer { path: STATUS, why: e.to_string() })
    }

    async fn get(&self, path: &'static str, target: &str) -> Result<String, AdminError> {
        let unreachable =
            |e: &dyn fmt::Display| AdminError::Unreachable(self.authority.clone(), e.to_string());
        let odd = |why: String| AdminError::Answer { path, why };
        let asked = async {
            let stream = TcpStream::connect(&self.dial).await.map_err(|e| unreachable(&e))?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|e| unreachable(&e))?;
            tokio::spawn(connection);
            let basic = STANDARD.encode(format!("{}:{}", self.user, self.password));
            let mut basic =
                HeaderValue::try_from(format!("Basic {basic}")).map_err(|e| odd(e.to_string()))?;
            basic.set_sensitive(true);
            let request = Request::get(target)
                .header(HOST, &self.authority)
                .header(AUTHORIZATION, basic)
                .body(Empty::<Bytes>::new())
                .map_err(|e| odd(e.to_string()))?;
            let response = sender.send_request(request).await.map_err(|e| unreachable(&e))?;
            match response.status() {
                StatusCode::OK => {}
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(AdminError::Password),
                status => return Err(odd(status.to_string())),
            }
            let body = Limited::new(response.into_body(), LARGEST)
                .collect()
                .await
                .map_err(|e| odd(e.to_string()))?;
            // User agents are strangers' bytes.
            Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
        };
        timeout(ANSWER, asked).await.unwrap_or_else(|_| Err(AdminError::Silent(self.authority.clone())))
    }
}

/// Of a mount that is not there, Icecast says 400.
fn gone(e: AdminError, mount: &str) -> AdminError {
    match e {
        AdminError::Answer { why, .. } if why.starts_with("400") => AdminError::NoMount(mount.to_owned()),
        e => e,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // As Icecast 2.4.4 answers.
    const STATS: &str = r#"<?xml version="1.0"?>
<icestats><clients>4</clients><listeners>2</listeners><source mount="/live.oga"><listeners>2</listeners><listenurl>http://localhost:8000/live.oga</listenurl><max_listeners>20</max_listeners><server_type>audio/ogg</server_type></source><source mount="/x.mp3"><listeners>0</listeners><listenurl>http://localhost:8000/x.mp3</listenurl><max_listeners>unlimited</max_listeners><server_type>audio/mpeg</server_type></source><source mount="odd"/></icestats>"#;
    const CLIENTS: &str = r#"<?xml version="1.0"?>
<icestats><source mount="/live.oga"><Listeners>2</Listeners><listener><IP>127.0.0.3</IP><UserAgent>play&lt;er&amp;3</UserAgent><Connected>1</Connected><ID>2</ID></listener><listener><IP>::ffff:10.0.0.2</IP><Connected>61</Connected><ID>3</ID></listener><listener><IP>nobody</IP><ID>4</ID></listener></source></icestats>"#;

    #[test]
    fn mounts_are_read_as_icecast_tells_them() {
        let mounts = parse_mounts(STATS).unwrap();
        let [live, mp3] = mounts.as_slice() else { panic!("{mounts:?}") };
        assert_eq!((live.name.as_str(), live.listeners, live.most), ("/live.oga", 2, Some(20)));
        assert_eq!(live.url, "http://localhost:8000/live.oga");
        assert!(live.is_ogg() && !mp3.is_ogg());
        assert_eq!(mp3.most, None);
    }

    #[test]
    fn listeners_are_read_and_what_names_nobody_is_left_out() {
        let all = parse_listeners(CLIENTS).unwrap();
        let [a, b] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!((a.id, a.agent.as_str(), a.connected.as_secs()), (2, "play<er&3", 1));
        assert_eq!((b.id, b.ip.to_string().as_str(), b.agent.as_str()), (3, "10.0.0.2", ""));
        let long = CLIENTS.replace("play&lt;er", &"ü".repeat(300));
        assert!(parse_listeners(&long).unwrap()[0].agent.len() <= AGENT);
    }

    #[test]
    fn answers_of_something_else_are_refused_in_words() {
        for bad in ["", "<html>", "<html></html>", "{}", "<icestats><a></icestats>"] {
            assert!(parse_mounts(bad).is_err(), "{bad}");
            assert!(parse_listeners(bad).is_err(), "{bad}");
            assert!(parse_killed(bad).is_err(), "{bad}");
        }
        let bomb = r#"<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><icestats>&b;</icestats>"#;
        assert!(parse_mounts(bomb).is_err());
        let said = |n| format!("<iceresponse><message>x</message><return>{n}</return></iceresponse>");
        assert!(parse_killed(&said(1)).unwrap());
        assert!(!parse_killed(&said(0)).unwrap());
    }

    #[test]
    fn a_server_is_named_by_its_url() {
        let at = |s: &str| s.parse::<Address>().map(|a| (a.authority, a.dial));
        let two = |a: &str, d: &str| Ok((a.to_owned(), d.to_owned()));
        assert_eq!(at("http://radio.example:8000/"), two("radio.example:8000", "radio.example:8000"));
        assert_eq!(at("http://radio.example"), two("radio.example", "radio.example:80"));
        assert_eq!(at("http://[::1]:8000"), two("[::1]:8000", "[::1]:8000"));
        assert_eq!(at("http://[::1]"), two("[::1]", "[::1]:80"));
        for bad in [
            "",
            "radio.example",
            "https://a",
            "http://",
            "http://a/b",
            "http://u:p@a",
            "http://a:x",
            "http://a:0",
        ] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }
}
