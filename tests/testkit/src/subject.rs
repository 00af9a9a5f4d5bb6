//! What is tested.

use iceshare::protocol::{Abilities, NetKind, Protocol, Registration, Registry};

use crate::Failure;
use crate::emulator::Link;

/// The transport under test, and its settings.
#[derive(Debug, Clone)]
pub struct Subject {
    registration: Registration,
    settings: Vec<(String, String)>,
    hurried: Vec<(String, String)>,
    left_out: Vec<(&'static str, &'static str)>,
    link: Option<Link>,
}

impl Subject {
    /// The protocol of this name, which the test's crate links (`use your_crate as _;`).
    ///
    /// # Panics
    /// If nothing of that name is linked, or a name is registered twice.
    #[must_use]
    pub fn linked(name: &str) -> Subject {
        let registry = match Registry::linked() {
            Ok(registry) => registry,
            Err(e) => panic!("{e}"),
        };
        let names: Vec<_> = registry.registrations().iter().map(|r| r.name).collect();
        match registry.registrations().iter().find(|r| r.name == name) {
            Some(r) => Subject::of(*r),
            None => panic!(
                "no protocol {name:?} is linked into this test, only {names:?}: it needs `use your_crate as _;`"
            ),
        }
    }

    /// The protocol of a registration that is not linked.
    #[must_use]
    pub fn of(registration: Registration) -> Subject {
        Subject { registration, settings: Vec::new(), hurried: Vec::new(), left_out: Vec::new(), link: None }
    }

    /// With a setting, as `--set NAME.key=value` has it.
    #[must_use]
    pub fn set(mut self, key: impl Into<String>, value: impl Into<String>) -> Subject {
        self.settings.push((key.into(), value.into()));
        self
    }

    /// With a setting by which it waits less long than it does for users: for the cases alone that look whether a host gives up who
    /// keeps it waiting. Without, they take as long as that is, [`patience`](crate::world::patience) at most.
    #[must_use]
    pub fn hurried(mut self, key: impl Into<String>, value: impl Into<String>) -> Subject {
        self.hurried.push((key.into(), value.into()));
        self
    }

    /// Without a case, and why; the report says so. For one that takes too long in each run, say.
    #[must_use]
    pub fn without(mut self, case: &'static str, why: &'static str) -> Subject {
        self.left_out.push((case, why));
        self
    }

    /// Why a case is left out, if it is.
    pub(crate) fn left_out(&self, case: &str) -> Option<&'static str> {
        self.left_out.iter().find(|(name, _)| *name == case).map(|(_, why)| *why)
    }

    /// With those settings.
    pub(crate) fn in_a_hurry(&self) -> Subject {
        let mut hurried = self.clone();
        hurried.settings.append(&mut hurried.hurried);
        hurried
    }

    /// The same over another network than loopback as it is: worlds put an [emulator](crate::emulator) between host and
    /// receiver.
    #[must_use]
    pub fn over(mut self, link: Link) -> Subject {
        self.link = Some(link);
        self
    }

    /// The network.
    #[must_use]
    pub fn link(&self) -> Option<Link> {
        self.link
    }

    /// Its registration.
    #[must_use]
    pub fn registration(&self) -> &Registration {
        &self.registration
    }

    /// A value of its own, as a program that starts would build it.
    ///
    /// # Errors
    /// If its name is none, or it refuses the settings.
    pub fn build(&self) -> Result<Protocol, Failure> {
        let settings: Vec<_> = self
            .settings
            .iter()
            .map(|(k, v)| (self.registration.name.to_owned(), k.clone(), v.clone()))
            .collect();
        let mut built = Registry::of([self.registration])?.build(&[], &settings)?;
        Ok(built.remove(0))
    }

    /// What it declares.
    ///
    /// # Errors
    /// As [`Subject::build`].
    pub fn abilities(&self) -> Result<Abilities, Failure> {
        Ok(self.build()?.implementation.abilities())
    }

    /// What it dials.
    ///
    /// # Errors
    /// As [`Subject::build`].
    pub fn dials(&self) -> Result<Option<NetKind>, Failure> {
        Ok(self.build()?.implementation.dials())
    }
}

impl From<&str> for Subject {
    fn from(name: &str) -> Subject {
        Subject::linked(name)
    }
}
