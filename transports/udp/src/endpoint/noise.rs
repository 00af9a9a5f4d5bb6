//! The handshake: Noise_IK_25519_AESGCM_SHA256, whose static keys the identities sign. Randomness comes from outside.

use std::sync::{Arc, Mutex, PoisonError};

use curve25519_dalek::MontgomeryPoint;
use iceshare::icet::{Identity, PeerKey};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, RingResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};

use crate::seal::Keys;
use crate::wire::datagram::{AssocId, Key};
use crate::wire::{MIN_DATAGRAM, Reader};

const PARAMS: &str = "Noise_IK_25519_AESGCM_SHA256";
const PROLOGUE: &[u8] = b"IceShare/1 udp\0";
const STATIC: &[u8] = b"IceShare/1 udp static\0";
/// What Noise adds to the payload of the first message: e, s and two tags.
const FIRST: usize = 32 + 48 + 16;
/// Bytes of the first payload before the frames.
const FIRST_PAYLOAD: usize = 32 + 64 + 2;
/// Most bytes of frames in the first message, so that a HELLO has 1200 bytes.
pub(crate) const EARLY: usize = MIN_DATAGRAM - 44 - FIRST - FIRST_PAYLOAD;
/// Bytes of the second payload.
const SECOND_PAYLOAD: usize = 8 + 2;

/// Bytes that are good as keys, from a seed that is.
#[derive(Debug, Clone)]
pub(crate) struct Entropy(Arc<Mutex<StdRng>>);

impl Entropy {
    pub(crate) fn new(seed: [u8; 32]) -> Entropy {
        Entropy(Arc::new(Mutex::new(StdRng::from_seed(seed))))
    }

    pub(crate) fn fill(&self, out: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(out);
    }

    pub(crate) fn array<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }
}

impl Random for Entropy {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        self.fill(dest);
        Ok(())
    }
}

/// X25519 (RFC 7748) of the library that the identities use too.
#[derive(Default)]
struct X25519 {
    private: [u8; 32],
    public: [u8; 32],
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, privkey: &[u8]) {
        if let Ok(key) = <[u8; 32]>::try_from(privkey) {
            self.private = key;
            self.public = public_key(key);
        }
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        let mut key = [0; 32];
        rng.try_fill_bytes(&mut key)?;
        self.set(&key);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &self.private
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let point = pubkey.first_chunk::<32>().ok_or(snow::Error::Dh)?;
        let shared = MontgomeryPoint(*point).mul_clamped(self.private);
        // A key of small order (RFC 7748, section 6.1).
        if shared.0 == [0; 32] {
            return Err(snow::Error::Dh);
        }
        out.get_mut(..32).ok_or(snow::Error::Dh)?.copy_from_slice(&shared.0);
        Ok(())
    }
}

fn public_key(private: [u8; 32]) -> Key {
    MontgomeryPoint::mul_base_clamped(private).0
}

struct Resolver(Entropy);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(self.0.clone()))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::new(X25519::default()) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        RingResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        RingResolver.resolve_cipher(choice)
    }
}

/// This peer's part in handshakes.
pub(crate) struct Credentials {
    identity: PeerKey,
    private: [u8; 32],
    /// Our static key.
    pub(crate) public: Key,
    /// The identity's signature of it.
    pub(crate) signature: [u8; 64],
    entropy: Entropy,
}

/// A peer that proved who it is in the first message.
pub(crate) struct Introduced {
    /// Who.
    pub(crate) peer: PeerKey,
    /// The largest datagram that it takes.
    pub(crate) largest: usize,
    /// The frames that it sent along.
    pub(crate) frames: Vec<u8>,
    state: HandshakeState,
}

/// What the second message says.
pub(crate) struct Answered {
    pub(crate) keys: Keys,
    /// The responder's number.
    pub(crate) number: AssocId,
    /// The largest datagram that it takes.
    pub(crate) largest: usize,
}

fn prologue(responder: &PeerKey, initiator: AssocId, cookie: &[u8; 32]) -> Vec<u8> {
    [PROLOGUE, &responder.0, &initiator.0.to_be_bytes(), cookie].concat()
}

fn largest(bytes: [u8; 2]) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes(bytes))).filter(|n| *n >= MIN_DATAGRAM)
}

fn size(largest: usize) -> [u8; 2] {
    u16::try_from(largest).unwrap_or(u16::MAX).to_be_bytes()
}

/// Whether `key` is what `identity` signed as its static key.
pub(crate) fn is_static_key(identity: &PeerKey, key: &Key, signature: &[u8; 64]) -> bool {
    identity.verify(STATIC, key, signature)
}

impl Credentials {
    /// With a static key of its own.
    pub(crate) fn new(identity: &Identity, entropy: Entropy) -> Credentials {
        let private = entropy.array();
        let public = public_key(private);
        let signature = identity.sign(STATIC, &public).0;
        Credentials { identity: identity.key(), private, public, signature, entropy }
    }

    fn builder<'a>(&'a self, prologue: &'a [u8]) -> Option<Builder<'a>> {
        let params: NoiseParams = PARAMS.parse().ok()?;
        let builder = Builder::with_resolver(params, Box::new(Resolver(self.entropy.clone())));
        builder.local_private_key(&self.private).ok()?.prologue(prologue).ok()
    }

    /// The first message to `responder`, whose static key is `key`; `frames` go along.
    pub(crate) fn hello(
        &self,
        responder: &PeerKey,
        (initiator, cookie, key): (AssocId, &[u8; 32], &Key),
        takes: usize,
        frames: &[u8],
    ) -> Option<(HandshakeState, Vec<u8>)> {
        let prologue = prologue(responder, initiator, cookie);
        let mut state = self.builder(&prologue)?.remote_public_key(key).ok()?.build_initiator().ok()?;
        let payload = [&self.identity.0[..], &self.signature, &size(takes), frames].concat();
        let mut message = vec![0; payload.len() + FIRST];
        let len = state.write_message(&payload, &mut message).ok()?;
        message.truncate(len);
        Some((state, message))
    }

    /// Reads a first message. None: it is not for us, not whole, or its sender is not who it says.
    pub(crate) fn introduced(
        &self,
        initiator: AssocId,
        cookie: &[u8; 32],
        message: &[u8],
    ) -> Option<Introduced> {
        let prologue = prologue(&self.identity, initiator, cookie);
        let mut state = self.builder(&prologue)?.build_responder().ok()?;
        let mut payload = vec![0; message.len()];
        let len = state.read_message(message, &mut payload).ok()?;
        let mut r = Reader(payload.get(..len)?);
        let peer = PeerKey(r.array().ok()?);
        let signature = r.array().ok()?;
        let largest = largest(r.array().ok()?)?;
        let key: Key = state.get_remote_static()?.try_into().ok()?;
        is_static_key(&peer, &key, &signature).then(|| Introduced {
            peer,
            largest,
            frames: r.0.to_vec(),
            state,
        })
    }

    /// Reads the second message.
    pub(crate) fn answered(mut state: HandshakeState, message: &[u8]) -> Option<Answered> {
        let mut payload = vec![0; message.len()];
        let len = state.read_message(message, &mut payload).ok()?;
        let mut r = Reader(payload.get(..len)?);
        let number = AssocId(u64::from_be_bytes(r.array().ok()?));
        let largest = largest(r.array().ok()?)?;
        Some(Answered { keys: Keys::split(&mut state)?, number, largest })
    }
}

impl Introduced {
    /// The second message, and the keys.
    pub(crate) fn answer(mut self, number: AssocId, takes: usize) -> Option<(Keys, Vec<u8>)> {
        let payload = [&number.0.to_be_bytes()[..], &size(takes)].concat();
        let mut message = vec![0; SECOND_PAYLOAD + 32 + 16];
        let len = self.state.write_message(&payload, &mut message).ok()?;
        message.truncate(len);
        Some((Keys::split(&mut self.state)?, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::TAG;

    fn credentials(seed: u8) -> Credentials {
        Credentials::new(&Identity::from_seed(&[seed; 32]), Entropy::new([seed; 32]))
    }

    const NUMBER: AssocId = AssocId(7);
    const COOKIE: [u8; 32] = [3; 32];

    fn hello(from: &Credentials, to: &Credentials) -> (HandshakeState, Vec<u8>) {
        from.hello(&to.identity, (NUMBER, &COOKIE, &to.public), 1472, b"frames").unwrap()
    }

    #[test]
    fn both_ends_know_each_other_and_share_keys() {
        let (a, b) = (credentials(1), credentials(2));
        let (state, message) = hello(&a, &b);
        let introduced = b.introduced(NUMBER, &COOKIE, &message).unwrap();
        assert_eq!(introduced.peer, a.identity);
        assert_eq!((introduced.largest, introduced.frames.as_slice()), (1472, &b"frames"[..]));
        let (keys, answer) = introduced.answer(AssocId(9), 1300).unwrap();
        assert_eq!(answer.len(), SECOND_PAYLOAD + 48);
        let answered = Credentials::answered(state, &answer).unwrap();
        assert_eq!((answered.number, answered.largest), (AssocId(9), 1300));
        let mut sealed = b"before hello".to_vec();
        assert!(keys.seal(5, &mut sealed, 7));
        assert_eq!((&sealed[..7], sealed.len()), (&b"before "[..], 12 + TAG));
        assert!(answered.keys.open(4, &mut sealed.clone()[7..]).is_none());
        assert!(answered.keys.open(5, &mut sealed.clone()[6..]).is_none());
        assert!(keys.open(5, &mut sealed.clone()[7..]).is_none());
        assert_eq!(answered.keys.open(5, &mut sealed[7..]), Some(&mut b"hello".to_owned()[..]));
    }

    #[test]
    fn packets_are_those_of_noise() {
        let (a, b) = (credentials(1), credentials(2));
        let (mut state, message) = hello(&a, &b);
        let mut host = b.introduced(NUMBER, &COOKIE, &message).unwrap().state;
        assert!(Keys::split(&mut host).is_none() && Keys::split(&mut state).is_none(), "not yet");
        let mut answer = [0; 48];
        host.write_message(&[], &mut answer).unwrap();
        state.read_message(&answer, &mut []).unwrap();
        let ours = [Keys::split(&mut host).unwrap(), Keys::split(&mut state).unwrap()];
        let theirs = [host, state].map(|s| s.into_stateless_transport_mode().unwrap());
        for (i, number) in [(0, 0), (1, 0), (0, 1 << 23), (1, 0x0102_0304)] {
            let mut sealed = b"packet".to_vec();
            assert!(ours[i].seal(number, &mut sealed, 0));
            let mut plain = [0; 22];
            let len = theirs[1 - i].read_message(number, &sealed, &mut plain).unwrap();
            assert_eq!(&plain[..len], b"packet");
            let len = theirs[i].write_message(number, b"packet", &mut plain).unwrap();
            assert_eq!(ours[1 - i].open(number, &mut plain[..len]), Some(&mut b"packet".to_owned()[..]));
        }
    }

    #[test]
    fn a_first_message_is_for_one_host_one_number_one_cookie() {
        let (a, b, c) = (credentials(1), credentials(2), credentials(3));
        let (_, message) = hello(&a, &b);
        assert!(c.introduced(NUMBER, &COOKIE, &message).is_none());
        assert!(b.introduced(AssocId(8), &COOKIE, &message).is_none());
        assert!(b.introduced(NUMBER, &[4; 32], &message).is_none());
        // Another host shows this one's static key as its own: the identity in the prologue is another.
        let (_, message) = a.hello(&c.identity, (NUMBER, &COOKIE, &b.public), 1472, b"").unwrap();
        assert!(b.introduced(NUMBER, &COOKIE, &message).is_none());
        for at in 0..message.len() {
            let (_, mut message) = hello(&a, &b);
            message[at] ^= 1;
            assert!(b.introduced(NUMBER, &COOKIE, &message).is_none(), "{at}");
            assert!(b.introduced(NUMBER, &COOKIE, &message[..at]).is_none(), "{at}");
        }
    }

    #[test]
    fn nobody_is_who_it_says_without_the_signature() {
        let (mut a, b, victim) = (credentials(1), credentials(2), credentials(3));
        a.identity = victim.identity;
        assert!(b.introduced(NUMBER, &COOKIE, &hello(&a, &b).1).is_none());
        a.signature = victim.signature;
        assert!(b.introduced(NUMBER, &COOKIE, &hello(&a, &b).1).is_none());
        assert!(is_static_key(&victim.identity, &victim.public, &victim.signature));
        assert!(!is_static_key(&b.identity, &victim.public, &victim.signature));
    }

    #[test]
    fn keys_of_small_order_are_refused() {
        let a = credentials(1);
        for point in [[0; 32], {
            let mut one = [0; 32];
            one[0] = 1;
            one
        }] {
            assert!(a.hello(&credentials(2).identity, (NUMBER, &COOKIE, &point), 1472, b"").is_none());
        }
    }

    #[test]
    fn a_hello_with_as_many_frames_as_fit_has_1200_bytes() {
        let (a, b) = (credentials(1), credentials(2));
        let frames = [0; EARLY];
        let (_, noise) = a.hello(&b.identity, (NUMBER, &COOKIE, &b.public), 1472, &frames).unwrap();
        let hello =
            crate::wire::datagram::Datagram::Hello { initiator: NUMBER, cookie: COOKIE, noise: &noise };
        assert_eq!(hello.write().len(), MIN_DATAGRAM);
    }
}
