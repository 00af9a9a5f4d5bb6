//! TLS of peers and trackers: version 1.3 only (RFC 8446), both ends prove an ed25519 key (RFC 8032) by a self-signed
//! X.509 certificate (RFC 8410). Nothing of the certificate counts but its key: no name, no date, no chain.
//!
//! A verifier reads the key from the certificate's `SubjectPublicKeyInfo` and checks the handshake's
//! `CertificateVerify` signature (RFC 8446, section 4.4.3) under it: whoever passes holds the key's secret.
//! There is no session resumption and no early data: each handshake proves the keys anew.

use std::sync::{Arc, OnceLock};

use ed25519_dalek::VerifyingKey;
use icet::{Identity, PeerKey};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};
use thiserror::Error as ThisError;

/// The name that clients put where TLS wants a server name; it is neither sent nor checked.
pub const SERVER_NAME: &str = "iceshare.invalid";

/// Longest certificate that is looked at, in bytes; ours take about 300.
const CERTIFICATE: usize = 4096;

/// The first 12 bytes of an ed25519 `SubjectPublicKeyInfo` (RFC 8410, section 4); the key follows.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// The first 16 bytes of an ed25519 private key in PKCS #8 (RFC 8410, section 7); the seed follows.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Why TLS could not be set up for an identity. It does not depend on any input from outside.
#[derive(Debug, ThisError)]
pub enum TlsError {
    /// The certificate could not be made.
    #[error("cannot make a certificate for this identity")]
    Certificate(#[from] rcgen::Error),
    /// The TLS library refused the key or the configuration.
    #[error("cannot configure TLS for this identity")]
    Config(#[from] Error),
}

/// Why a certificate is not a peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ThisError)]
pub enum CertificateKeyError {
    /// Not X.509 of version 3, or unreasonably long.
    #[error("the other end's certificate cannot be read")]
    Malformed,
    /// Its key is not an ed25519 key, or one that anybody can sign for (RFC 8032, small order).
    #[error("the other end's certificate has no usable ed25519 key")]
    NotEd25519,
}

/// The key of a peer's certificate. Takes any bytes.
///
/// # Errors
/// [`CertificateKeyError`].
pub fn key_of(certificate: &CertificateDer<'_>) -> Result<PeerKey, CertificateKeyError> {
    if certificate.len() > CERTIFICATE {
        return Err(CertificateKeyError::Malformed);
    }
    let parsed = ParsedCertificate::try_from(certificate).map_err(|_| CertificateKeyError::Malformed)?;
    key_of_spki(&parsed.subject_public_key_info())
}

fn key_of_spki(spki: &SubjectPublicKeyInfoDer<'_>) -> Result<PeerKey, CertificateKeyError> {
    let bytes: &[u8] = spki.as_ref();
    let key = bytes.strip_prefix(&SPKI_PREFIX).and_then(|k| <[u8; 32]>::try_from(k).ok());
    let key = key.ok_or(CertificateKeyError::NotEd25519)?;
    match VerifyingKey::from_bytes(&key) {
        Ok(k) if is_canonical(&key) && !k.is_weak() => Ok(PeerKey(key)),
        _ => Err(CertificateKeyError::NotEd25519),
    }
}

/// Whether the encoded coordinate is below 2^255 - 19: else the same point would have two keys.
fn is_canonical(key: &[u8; 32]) -> bool {
    let [low, middle @ .., high] = key;
    *low < 0xed || high & 0x7f != 0x7f || middle.iter().any(|b| *b != 0xff)
}

/// The key that the other end of a QUIC connection proved.
///
/// # Errors
/// [`CertificateKeyError`] if it showed no certificate of a peer (which our configurations refuse before).
pub fn key_of_quic(connection: &quinn::Connection) -> Result<PeerKey, CertificateKeyError> {
    let identity = connection.peer_identity().and_then(|i| i.downcast::<Vec<CertificateDer<'static>>>().ok());
    key_of(identity.as_deref().and_then(|c| c.first()).ok_or(CertificateKeyError::Malformed)?)
}

/// The key that the other end of a TLS connection proved.
///
/// # Errors
/// As [`key_of_quic`].
pub fn key_of_tls(connection: &rustls::CommonState) -> Result<PeerKey, CertificateKeyError> {
    key_of(connection.peer_certificates().and_then(|c| c.first()).ok_or(CertificateKeyError::Malformed)?)
}

/// What all configurations of one identity share: certificate, key, cryptography.
#[derive(Clone)]
pub struct Credentials {
    certified: Arc<CertifiedKey>,
    provider: Arc<CryptoProvider>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// Signs certificates with an identity.
struct Issuer {
    identity: Identity,
    key: PeerKey,
}

impl rcgen::PublicKeyData for Issuer {
    fn der_bytes(&self) -> &[u8] {
        &self.key.0
    }
    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl rcgen::SigningKey for Issuer {
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        // No context of our own: X.509 fixes what is signed (a DER sequence, so no other kind of ours begins like it).
        Ok(self.identity.sign(&[], msg).0.to_vec())
    }
}

impl Credentials {
    /// Makes the certificate of `identity`; the same bytes every time.
    ///
    /// # Errors
    /// [`TlsError`], if a library is at fault.
    pub fn new(identity: &Identity) -> Result<Credentials, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let issuer = Issuer { identity: identity.clone(), key: identity.key() };
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new())?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "iceshare");
        let certificate = params.self_signed(&issuer)?.der().clone();
        let pkcs8 = [&PKCS8_PREFIX[..], &identity.seed()].concat();
        let key = rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8))?;
        Ok(Credentials { certified: Arc::new(CertifiedKey::new(vec![certificate], key)), provider })
    }

    /// The certificate.
    #[must_use]
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.certified.cert.first().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()))
    }

    /// Configuration of one connection that we open. With a `pin`, any other key is refused; the key that was seen
    /// stands in the second value once the handshake got that far.
    ///
    /// # Errors
    /// [`TlsError::Config`].
    pub fn client(
        &self,
        pin: Option<PeerKey>,
        alpn: &[u8],
    ) -> Result<(ClientConfig, Arc<OnceLock<PeerKey>>), TlsError> {
        let seen = Arc::new(OnceLock::new());
        let verifier = Verifier { provider: self.provider.clone(), pin, seen: seen.clone() };
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
                self.certified.clone(),
            )));
        config.alpn_protocols = vec![alpn.to_vec()];
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        Ok((config, seen))
    }

    /// Configuration of the connections that we accept, of any client that proves a key.
    ///
    /// # Errors
    /// [`TlsError::Config`].
    pub fn server(&self, alpns: &[Vec<u8>]) -> Result<ServerConfig, TlsError> {
        let verifier =
            Verifier { provider: self.provider.clone(), pin: None, seen: Arc::new(OnceLock::new()) };
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(self.certified.clone())));
        config.alpn_protocols = alpns.to_vec();
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(config)
    }
}

/// Reads, and if pinned compares, the other end's key; checks its signature of the handshake.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    pin: Option<PeerKey>,
    seen: Arc<OnceLock<PeerKey>>,
}

impl Verifier {
    fn certificate(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let key = key_of(certificate).map_err(|_| Error::from(CertificateError::BadEncoding))?;
        if self.pin.is_some_and(|pin| pin != key) {
            // What the caller reports: the seen key differs from the pinned one.
            let _ = self.seen.set(key);
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        let _ = self.seen.set(key);
        Ok(())
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let spki = parsed.subject_public_key_info();
        key_of_spki(&spki).map_err(|_| Error::from(CertificateError::BadEncoding))?;
        if dss.scheme != SignatureScheme::ED25519 {
            return Err(rustls::PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        verify_tls13_signature_with_raw_key(
            message,
            &spki,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }
}

fn no_tls12() -> Error {
    rustls::PeerIncompatible::Tls12NotOffered.into()
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.certificate(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        key_of(end_entity).map_err(|_| Error::from(CertificateError::BadEncoding))?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn certificate() -> Vec<u8> {
        let identity = Identity::from_seed(&[7; 32]);
        Credentials::new(&identity).map(|c| c.certificate().to_vec()).unwrap_or_default()
    }

    #[test]
    fn a_certificate_tells_its_key_and_is_always_the_same() {
        let identity = Identity::from_seed(&[7; 32]);
        assert_eq!(key_of(&CertificateDer::from(certificate())), Ok(identity.key()));
        assert_eq!(certificate(), certificate());
    }

    #[test]
    fn a_key_that_anybody_can_sign_for_is_refused() {
        let spki = |key: [u8; 32]| SubjectPublicKeyInfoDer::from([&SPKI_PREFIX[..], &key].concat());
        let mut one = [0; 32];
        one[0] = 1; // the neutral element: any signature with s = 0 fits any message
        assert_eq!(key_of_spki(&spki(one)), Err(CertificateKeyError::NotEd25519));
        // A point, but written as 2^255 - 1 where 18 is meant.
        assert_eq!(key_of_spki(&spki([0xff; 32])), Err(CertificateKeyError::NotEd25519));
        let good = Identity::from_seed(&[1; 32]).key();
        assert_eq!(key_of_spki(&spki(good.0)), Ok(good));
        let long = [&SPKI_PREFIX[..], &good.0, &[0]].concat();
        assert_eq!(key_of_spki(&SubjectPublicKeyInfoDer::from(long)), Err(CertificateKeyError::NotEd25519));
    }

    #[test]
    fn a_key_of_another_kind_is_refused() -> Result<(), rcgen::Error> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let certificate = rcgen::CertificateParams::new(vec!["a".to_owned()])?.self_signed(&key)?;
        assert_eq!(key_of(certificate.der()), Err(CertificateKeyError::NotEd25519));
        Ok(())
    }

    proptest! {
        #[test]
        fn garbage_is_no_certificate(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(key_of(&CertificateDer::from(bytes)).is_err());
        }

        /// Anything may be wrong with it, but it never panics, and what it yields is a key.
        #[test]
        fn damaged_certificates_do_not_panic(at in 0usize..300, to in any::<u8>(), cut in 0usize..300) {
            let mut bytes = certificate();
            let n = bytes.len();
            bytes[at % n] = to;
            let _ = key_of(&CertificateDer::from(bytes.clone()));
            bytes.truncate(cut % n);
            prop_assert!(key_of(&CertificateDer::from(bytes)).is_err());
        }
    }
}
