//! The payload protocols of this binary. A Cargo dependency alone links nothing, silently: each crate is named here
//! once, and nowhere else in the command is a protocol known.

use iceshare_transport_http as _;

#[cfg(test)]
mod tests {
    use iceshare::protocol::Registry;

    #[test]
    fn exactly_these_are_linked() {
        let registry = Registry::linked().expect("a sound registry");
        let names: Vec<_> = registry.registrations().iter().map(|r| r.name).collect();
        assert_eq!(names, ["http"]);
    }
}
