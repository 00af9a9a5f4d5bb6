//! The peer engine: sans-IO.

pub mod io;

/// Stub
#[derive(Debug)]
pub struct Engine;
#[allow(missing_docs, unused)]
impl Engine {
    pub fn new(config: io::Config) -> Engine {
        Engine
    }
    pub fn handle_command(&mut self, now: icet::Now, c: io::Command) {}
    pub fn handle_connected(&mut self, now: icet::Now, tracker: icet::PeerKey) {}
    pub fn handle_disconnected(&mut self, now: icet::Now) {}
    pub fn handle_message(&mut self, now: icet::Now, m: icet::message::ToPeer) {}
    pub fn handle_fetch(&mut self, now: icet::Now, fetch: io::FetchId, e: io::FetchEvent) {}
    pub fn handle_timeout(&mut self, now: icet::Now) {}
    pub fn poll_action(&mut self) -> Option<io::Action> {
        None
    }
    pub fn poll_timeout(&self) -> Option<icet::Now> {
        None
    }
}
