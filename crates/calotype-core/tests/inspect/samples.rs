//! Images in every format, as small as its rules allow, made by code.

/// Bytes, what they are declared as, and what must come of them.
pub(crate) struct Sample {
    /// What it is, for people.
    pub(crate) name: &'static str,
    /// Its declared container format.
    pub(crate) container: &'static str,
    /// Its declared disk format.
    pub(crate) format: &'static str,
    /// The image.
    pub(crate) bytes: Vec<u8>,
    /// The size of the disk, or how the refusal begins.
    pub(crate) outcome: Result<Option<u64>, &'static str>,
}

/// Images without a fault.
pub(crate) fn good() -> Vec<Sample> {
    let vhd_of_gpt = [&gpt()[..], &vhd_footer(2, gpt().len() as u64)].concat();
    let hybrid = with(iso(), &[(446, &mbr()[446..512])]);
    let v2 = with(qcow2(), &[(4, &be32(2)), (72, &[0; 40])]);
    let noise = vec![7; 5000];
    let nested = ova(&[
        ("box.ovf", &envelope(&[("disk.vmdk", 131_072)])),
        ("box.mf", b"SHA256"),
        ("disk.vmdk", &vmdk_stream()),
    ]);
    let server = ova(&[
        (
            "server.ovf",
            &envelope(&[("system.vmdk", 131_072), ("data.vmdk", 131_072)]),
        ),
        ("data.vmdk", &vmdk_stream()),
        ("system.vmdk", &vmdk_stream()),
    ]);
    [
        ("nothing", "raw", Vec::new(), Some(0)),
        ("noise", "raw", noise.clone(), Some(5000)),
        ("a disk", "raw", gpt(), Some(32_768)),
        ("a bootable medium", "raw", hybrid.clone(), Some(36_864)),
        ("an encrypted disk", "raw", luks(), Some(5120)),
        ("LUKS 2", "raw", with(luks(), &[(7, &[2])]), Some(5120)),
        ("qcow2", "qcow2", qcow2(), Some(65_536)),
        ("qcow2, version 2", "qcow2", v2, Some(65_536)),
        ("sparse vmdk", "vmdk", vmdk(), Some(131_072)),
        ("streamed vmdk", "vmdk", vmdk_stream(), Some(131_072)),
        ("vdi", "vdi", vdi(), Some(2048)),
        ("dynamic vhd", "vhd", vhd(), Some(2048)),
        ("fixed vhd", "vhd", vhd_fixed(), Some(2048)),
        ("fixed vhd of a disk", "vhd", vhd_of_gpt, Some(32_768)),
        ("vhdx", "vhdx", vhdx(), Some(2 << 20)),
        ("iso", "iso", iso(), Some(34_816)),
        ("bootable iso", "iso", hybrid, Some(34_816)),
        ("gpt", "gpt", gpt(), Some(32_768)),
        ("mbr", "gpt", mbr(), Some(32_768)),
        ("luks", "luks", luks(), Some(1024)),
        ("ploop", "ploop", ploop(), Some(8192)),
        ("zvhd", "zvhd", vhd_footer(3, 2048), None),
        ("zvhd2", "zvhd2", noise.clone(), None),
        ("a kernel", "aki", noise.clone(), None),
    ]
    .into_iter()
    .map(|(name, format, bytes, size)| sample(name, format, bytes, Ok(size)))
    .chain([
        in_container("ova", sample("ova", "vmdk", nested, Ok(None))),
        in_container("ova", sample("ova of a server", "vmdk", server, Ok(None))),
        in_container("docker", sample("docker", "raw", noise, Ok(None))),
    ])
    .collect()
}

/// A sample in a `bare` container.
pub(crate) fn sample(
    name: &'static str,
    format: &'static str,
    bytes: Vec<u8>,
    outcome: Result<Option<u64>, &'static str>,
) -> Sample {
    Sample {
        name,
        container: "bare",
        format,
        bytes,
        outcome,
    }
}

/// The sample in another container.
pub(crate) fn in_container(container: &'static str, sample: Sample) -> Sample {
    Sample {
        container,
        ..sample
    }
}

/// `bytes` with others at their places; it grows where it must.
pub(crate) fn with(mut bytes: Vec<u8>, parts: &[(usize, &[u8])]) -> Vec<u8> {
    for (at, part) in parts {
        let end = at + part.len();
        bytes.resize(bytes.len().max(end), 0);
        bytes[*at..end].copy_from_slice(part);
    }
    bytes
}

/// Clusters of 512 bytes: the header, counts, the first table, one of the second level, two of data.
pub(crate) fn qcow2() -> Vec<u8> {
    const COPIED: u64 = 1 << 63;
    with(
        vec![0; 6 * 512],
        &[
            (0, b"QFI\xfb"),
            (4, &be32(3)),
            (20, &be32(9)),
            (24, &be64(65_536)),
            (36, &be32(2)),
            (40, &be64(1024)),
            (48, &be64(512)),
            (56, &be32(1)),
            (96, &be32(4)),
            (100, &be32(112)),
            // The names of features, none; the end.
            (112, &be32(0x6803_f857)),
            (1024, &be64(COPIED | 1536)),
            (1536, &be64(COPIED | 2048)),
            (1544, &be64(COPIED | 2560)),
            (2048, &[7; 1024]),
        ],
    )
}

/// What a sparse disk's descriptor says.
pub(crate) const DESCRIPTOR: &str = "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=1\n\
    parentCID=ffffffff\ncreateType=\"monolithicSparse\"\n\n# Extent description\n\
    RW 256 SPARSE \"disk.vmdk\"\n\n#DDB\n\nddb.adapterType = \"ide\"\n\
    ddb.uuid.parent = \"00000000-0000-0000-0000-000000000000\"\n";

/// Grains of 4 KiB, tables of 16 of them; one grain has bytes.
pub(crate) fn vmdk() -> Vec<u8> {
    vmdk_of(DESCRIPTOR)
}

/// The same with another descriptor.
pub(crate) fn vmdk_of(descriptor: &str) -> Vec<u8> {
    with(
        vec![0; 16 * 512],
        &[
            (0, &vmdk_header(3, 4)),
            (512, descriptor.as_bytes()),
            (4 * 512, &le32(5)),
            (5 * 512, &le32(8)),
            (8 * 512, &[7; 4096]),
        ],
    )
}

fn vmdk_header(flags: u32, directory: u64) -> Vec<u8> {
    with(
        vec![0; 512],
        &[
            (0, b"KDMV"),
            (4, &le32(1)),
            (8, &le32(flags & !2)),
            (12, &le64(256)),
            (20, &le64(8)),
            (28, &le64(1)),
            (36, &le64(3)),
            (44, &le32(16)),
            (56, &le64(directory)),
            (64, &le64(4)),
            (73, b"\n \r\n"),
        ],
    )
}

/// A streamed disk: a grain, its table, the directory, the footer and the end, each behind its marker.
pub(crate) fn vmdk_stream() -> Vec<u8> {
    const STREAMED: u32 = 3 | 1 << 16 | 1 << 17;
    let descriptor = DESCRIPTOR.replace("monolithicSparse", "streamOptimized");
    with(
        vec![0; 12 * 512],
        &[
            (0, &vmdk_header(STREAMED, u64::MAX)),
            (512, descriptor.as_bytes()),
            (4 * 512 + 8, &le32(100)),
            (4 * 512 + 12, &[7; 100]),
            (5 * 512, &le64(1)),
            (5 * 512 + 12, &le32(1)),
            (6 * 512, &le32(4)),
            (7 * 512, &le64(1)),
            (7 * 512 + 12, &le32(2)),
            (8 * 512, &le32(6)),
            (9 * 512, &le64(1)),
            (9 * 512 + 12, &le32(3)),
            (10 * 512, &vmdk_header(STREAMED, 8)),
        ],
    )
}

/// Four blocks of 512 bytes, of which one has bytes.
pub(crate) fn vdi() -> Vec<u8> {
    with(
        vec![0; 1536],
        &[
            (0, b"<<< Oracle VM VirtualBox Disk Image >>>\n"),
            (0x40, &le32(0xbeda_107f)),
            (0x44, &le32(0x0001_0001)),
            (0x48, &le32(0x190)),
            (0x4c, &le32(1)),
            (0x154, &le32(512)),
            (0x158, &le32(1024)),
            (0x168, &le32(512)),
            (0x170, &le64(2048)),
            (0x178, &le32(512)),
            (0x180, &le32(4)),
            (0x184, &le32(1)),
            (512, &[0xff; 16]),
            (516, &le32(0)),
            (1024, &[7; 512]),
        ],
    )
}

/// Four blocks of 512 bytes, of which one has bytes.
pub(crate) fn vhd() -> Vec<u8> {
    let header = with(
        vec![0; 1024],
        &[
            (0, b"cxsparse"),
            (8, &[0xff; 8]),
            (16, &be64(1536)),
            (24, &be32(0x0001_0000)),
            (28, &be32(4)),
            (32, &be32(512)),
        ],
    );
    with(
        vec![0; 3072],
        &[
            (0, &vhd_footer(3, 2048)),
            (512, &vhd_summed(header, 36)),
            (1536, &[0xff; 16]),
            (1536, &be32(4)),
            (2048, &[0xff; 512]),
            (2560, &[7; 512]),
            (3072, &vhd_footer(3, 2048)),
        ],
    )
}

/// A disk of 2 KiB and its footer.
pub(crate) fn vhd_fixed() -> Vec<u8> {
    [vec![7; 2048], vhd_footer(2, 2048)].concat()
}

/// A footer of a disk of a kind (2 fixed, 3 dynamic, 4 differencing).
pub(crate) fn vhd_footer(kind: u32, size: u64) -> Vec<u8> {
    let header = if kind == 2 { u64::MAX } else { 512 };
    let footer = with(
        vec![0; 512],
        &[
            (0, b"conectix"),
            (8, &be32(2)),
            (12, &be32(0x0001_0000)),
            (16, &be64(header)),
            (40, &be64(size)),
            (48, &be64(size)),
            (60, &be32(kind)),
            (68, b"an id of a disk."),
        ],
    );
    vhd_summed(footer, 64)
}

/// The structure with its sum at `at`.
pub(crate) fn vhd_summed(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    bytes[at..at + 4].fill(0);
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    with(bytes, &[(at, &be32(!sum))])
}

/// Where a VHDX' metadata is, and the items in it.
pub(crate) const VHDX_METADATA: usize = 2 << 20;
/// The items behind the table of the metadata.
pub(crate) const VHDX_ITEMS: usize = VHDX_METADATA + 65_536;

/// Two blocks of 1 MiB, of which one has bytes.
pub(crate) fn vhdx() -> Vec<u8> {
    let mut bytes = with(
        vec![0; 4 << 20],
        &[
            (0, b"vhdxfile"),
            (65_536, b"head"),
            (65_536 + 8, &le64(1)),
            (65_536 + 66, &[1, 0]),
            (131_072, b"head"),
            (131_072 + 8, &le64(2)),
            (131_072 + 66, &[1, 0]),
            (1 << 20, &le64((3 << 20) | 6)),
            (VHDX_METADATA, b"metadata"),
            (VHDX_METADATA + 10, &[3, 0]),
            (VHDX_ITEMS, &le32(1 << 20)),
            (VHDX_ITEMS + 8, &le64(2 << 20)),
            (VHDX_ITEMS + 16, &le32(512)),
            (3 << 20, &[7; 4096]),
        ],
    );
    for (number, (id, at)) in [(PARAMETERS, 0), (SIZE, 8), (SECTOR, 16)]
        .into_iter()
        .enumerate()
    {
        let entry = VHDX_METADATA + 32 + number * 32;
        bytes = with(
            bytes,
            &[
                (entry, &guid(id)),
                (entry + 16, &le32(65_536 + at)),
                (entry + 20, &le32(8)),
                (entry + 24, &le32(4)),
            ],
        );
    }
    for table in [196_608, 262_144] {
        bytes = with(
            bytes,
            &[
                (table, b"regi"),
                (table + 8, &le32(2)),
                (table + 16, &guid(BLOCKS)),
                (table + 32, &le64(1 << 20)),
                (table + 40, &le32(1 << 20)),
                (table + 44, &le32(1)),
                (table + 48, &guid(METADATA)),
                (table + 64, &le64(VHDX_METADATA as u64)),
                (table + 72, &le32(1 << 20)),
                (table + 76, &le32(1)),
            ],
        );
    }
    vhdx_summed(bytes)
}

const BLOCKS: u128 = 0x2dc2_7766_f623_4200_9d64_115e_9bfd_4a08;
const METADATA: u128 = 0x8b7c_a206_4790_4b9a_b8fe_575f_050f_886e;
const PARAMETERS: u128 = 0xcaa1_6737_fa36_4d43_b3b6_33f0_aa44_e76b;
const SIZE: u128 = 0x2fa5_4224_cd1b_4876_b211_5dbe_d83b_f4b8;
const SECTOR: u128 = 0x8141_bf1d_a96f_4709_ba47_f233_a8fa_ab5f;
/// The locator of a parent.
pub(crate) const PARENT: u128 = 0xa8d3_5f2d_b30b_454d_abf7_d3d8_4834_ab0c;

/// A GUID as Microsoft writes it.
pub(crate) fn guid(id: u128) -> [u8; 16] {
    let mut bytes = id.to_be_bytes();
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    bytes
}

/// The image with the checksums of its headers and region tables.
pub(crate) fn vhdx_summed(mut bytes: Vec<u8>) -> Vec<u8> {
    for (at, length) in VHDX_SUMMED {
        if let Some(part) = bytes.get_mut(at..at + length) {
            part[4..8].fill(0);
            let sum = crc(0x82f6_3b78, part);
            part[4..8].copy_from_slice(&le32(sum));
        }
    }
    bytes
}

/// What is under checksums in a VHDX.
pub(crate) const VHDX_SUMMED: [(usize, usize); 4] = [
    (65_536, 4096),
    (131_072, 4096),
    (196_608, 65_536),
    (262_144, 65_536),
];

/// A volume of one sector behind the system's area.
pub(crate) fn iso() -> Vec<u8> {
    with(
        vec![0; 36_864],
        &[
            (0x8000, b"\x01CD001\x01"),
            (0x8000 + 80, &le32(17)),
            (0x8000 + 84, &be32(17)),
            (0x8000 + 128, &[0, 8, 8, 0]),
        ],
    )
}

/// A disk of 64 sectors with one partition in a GPT of four entries.
pub(crate) fn gpt() -> Vec<u8> {
    let entry = with(
        vec![0; 512],
        &[
            (0, b"a kind of system"),
            (16, b"one partition..."),
            (32, &le64(3)),
            (40, &le64(10)),
        ],
    );
    let disk = with(
        vec![0; 64 * 512],
        &[
            (446, &[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff]),
            (454, &le32(1)),
            (458, &le32(63)),
            (510, &[0x55, 0xaa]),
            (1024, &entry),
            (62 * 512, &entry),
        ],
    );
    let header = |own: u64, other: u64, entries: u64| {
        with(
            vec![0; 512],
            &[
                (0, b"EFI PART"),
                (8, &le32(0x0001_0000)),
                (12, &le32(92)),
                (24, &le64(own)),
                (32, &le64(other)),
                (40, &le64(3)),
                (48, &le64(61)),
                (56, b"an id of a disk."),
                (72, &le64(entries)),
                (80, &le32(4)),
                (84, &le32(128)),
            ],
        )
    };
    let headers = [(512, &header(1, 63, 2)[..]), (63 * 512, &header(63, 1, 62))];
    gpt_summed(with(disk, &headers))
}

/// The disk with the checksums of its two tables.
pub(crate) fn gpt_summed(mut bytes: Vec<u8>) -> Vec<u8> {
    for (header, entries) in [(512, 1024), (63 * 512, 62 * 512)] {
        let (Some(table), true) = (
            bytes.get(entries..entries + 512),
            bytes.len() >= header + 92,
        ) else {
            continue;
        };
        let sum = crc(0xedb8_8320, table);
        bytes[header + 88..header + 92].copy_from_slice(&le32(sum));
        bytes[header + 16..header + 20].fill(0);
        let sum = crc(0xedb8_8320, &bytes[header..header + 92]);
        bytes[header + 16..header + 20].copy_from_slice(&le32(sum));
    }
    bytes
}

/// A disk of 64 sectors with one partition in an MBR.
pub(crate) fn mbr() -> Vec<u8> {
    with(
        vec![0; 64 * 512],
        &[
            (446, &[0x80, 1, 1, 0, 0x83, 1, 1, 1]),
            (454, &le32(1)),
            (458, &le32(10)),
            (510, &[0x55, 0xaa]),
        ],
    )
}

/// One used key slot, 1 KiB of data.
pub(crate) fn luks() -> Vec<u8> {
    let mut bytes = with(
        vec![0; 10 * 512],
        &[
            (0, b"LUKS\xba\xbe\0\x01aes"),
            (104, &be32(8)),
            (108, &be32(32)),
            (512, &[7; 4608]),
        ],
    );
    for slot in 0..8 {
        bytes = with(bytes, &[(208 + slot * 48, &be32(0x0000_dead))]);
    }
    with(
        bytes,
        &[(208, &be32(0x00ac_71f3)), (248, &be32(2)), (252, &be32(4))],
    )
}

/// Two clusters of 4 KiB.
pub(crate) fn ploop() -> Vec<u8> {
    with(
        vec![7; 4608 + 4096],
        &[
            (0, &[0; 512]),
            (0, b"WithouFreSpacExt"),
            (16, &le32(2)),
            (28, &le32(8)),
            (32, &le32(2)),
            (36, &le64(16)),
            (48, &le32(1)),
        ],
    )
}

/// The description of a server with these disks: each with its file and how large it is.
pub(crate) fn envelope(disks: &[(&str, u64)]) -> Vec<u8> {
    let mut files = String::new();
    let mut sections = String::new();
    let mut parts = String::new();
    for (number, (file, capacity)) in disks.iter().enumerate() {
        files.push_str(&format!("<File ovf:id=\"f{number}\" ovf:href=\"{file}\"/>"));
        sections.push_str(&format!(
            "<Disk ovf:diskId=\"d{number}\" ovf:fileRef=\"f{number}\" ovf:capacity=\"{capacity}\"/>"
        ));
        parts.push_str(&format!(
            "<Item><rasd:AddressOnParent>{number}</rasd:AddressOnParent>\
             <rasd:HostResource>ovf:/disk/d{number}</rasd:HostResource>\
             <rasd:ResourceType>17</rasd:ResourceType></Item>"
        ));
    }
    format!(
        "<?xml version=\"1.0\"?><Envelope xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\">\
         <References>{files}</References><DiskSection>{sections}</DiskSection>\
         <VirtualSystem ovf:id=\"vm\"><OperatingSystemSection ovf:id=\"101\">\
         <Description>CentOS 7.2 64bit</Description></OperatingSystemSection>\
         <VirtualHardwareSection>{parts}</VirtualHardwareSection></VirtualSystem></Envelope>"
    )
    .into_bytes()
}

/// An archive of members.
pub(crate) fn ova(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in members {
        bytes.extend_from_slice(&ova_header(name, content.len(), b'0'));
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// The header of a member of an archive.
pub(crate) fn ova_header(name: &str, length: usize, kind: u8) -> Vec<u8> {
    let header = with(
        vec![0; 512],
        &[
            (0, name.as_bytes()),
            (100, b"0000644\0"),
            (124, format!("{length:011o}\0").as_bytes()),
            (156, &[kind]),
            (257, b"ustar\x0000"),
        ],
    );
    ova_summed(header)
}

/// The header with its sum.
pub(crate) fn ova_summed(header: Vec<u8>) -> Vec<u8> {
    let header = with(header, &[(148, b"        ")]);
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    with(header, &[(148, format!("{sum:06o}\0 ").as_bytes())])
}

/// A reflected CRC of 32 bits.
pub(crate) fn crc(polynomial: u32, bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (polynomial & (crc & 1).wrapping_neg());
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), step)
    })
}

/// Big endian.
pub(crate) fn be32(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

/// Big endian.
pub(crate) fn be64(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// Little endian.
pub(crate) fn le32(number: u32) -> [u8; 4] {
    number.to_le_bytes()
}

/// Little endian.
pub(crate) fn le64(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}
