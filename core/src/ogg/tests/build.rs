//! Builds pages for tests, field by field.

use proptest::prelude::*;

use crate::ogg::page;

/// A page in the making.
#[derive(Debug, Clone, Default)]
pub(crate) struct PageBuilder {
    flags: u8,
    granule: i64,
    serial: u32,
    sequence: u32,
    laces: Vec<u8>,
    body: Vec<u8>,
}

impl PageBuilder {
    pub(crate) fn new(serial: u32) -> Self {
        Self { serial, ..Self::default() }
    }

    pub(crate) fn continued(mut self) -> Self {
        self.flags |= 1;
        self
    }

    pub(crate) fn bos(mut self) -> Self {
        self.flags |= 2;
        self
    }

    pub(crate) fn eos(mut self) -> Self {
        self.flags |= 4;
        self
    }

    pub(crate) fn granule(mut self, granule: i64) -> Self {
        self.granule = granule;
        self
    }

    pub(crate) fn sequence(mut self, sequence: u32) -> Self {
        self.sequence = sequence;
        self
    }

    /// Adds a whole packet.
    pub(crate) fn packet(mut self, packet: &[u8]) -> Self {
        self.laces.extend(std::iter::repeat_n(255, packet.len() / 255));
        self.laces.push(u8::try_from(packet.len() % 255).unwrap());
        self.body.extend_from_slice(packet);
        self
    }

    /// Adds segments as given; their bytes are for [`Self::body`].
    pub(crate) fn laces(mut self, laces: &[u8]) -> Self {
        self.laces.extend_from_slice(laces);
        self
    }

    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.body.extend_from_slice(body);
        self
    }

    /// The finished page, with its checksum.
    pub(crate) fn build(self) -> Vec<u8> {
        let mut bytes = b"OggS\0".to_vec();
        bytes.push(self.flags);
        bytes.extend_from_slice(&self.granule.to_le_bytes());
        bytes.extend_from_slice(&self.serial.to_le_bytes());
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.push(u8::try_from(self.laces.len()).expect("a page has at most 255 segments"));
        bytes.extend_from_slice(&self.laces);
        bytes.extend_from_slice(&self.body);
        page::seal(&mut bytes);
        bytes
    }
}

/// Any small page: random flags, position, packets.
pub(crate) fn any_page() -> impl Strategy<Value = Vec<u8>> {
    let packets = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 0..6);
    (0_u8..8, any::<i64>(), any::<u32>(), any::<u32>(), packets).prop_map(
        |(flags, granule, serial, sequence, packets)| {
            let page = PageBuilder { flags, granule, serial, sequence, ..PageBuilder::default() };
            packets.iter().fold(page, |page, packet| page.packet(packet)).build()
        },
    )
}
