use proptest::prelude::*;

use super::*;

fn inspect(declared: &str, bytes: &[u8]) -> Result<Option<u64>> {
    let mut inspector = Inspector::new(declared);
    inspector.feed(bytes)?;
    Ok(inspector.finish()?.map(ByteSize::bytes))
}

#[track_caller]
fn refusal(declared: &str, bytes: &[u8]) -> String {
    let error = inspect(declared, bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedMediaType);
    error.message().to_owned()
}

/// `bytes` in a file of `length` zeros, each at its place.
fn file(length: usize, parts: &[(usize, &[u8])]) -> Vec<u8> {
    let mut file = vec![0; length];
    for (at, bytes) in parts {
        file[*at..*at + bytes.len()].copy_from_slice(bytes);
    }
    file
}

fn qcow2_with(parts: &[(usize, &[u8])]) -> Vec<u8> {
    let mut all: Vec<(usize, &[u8])> = vec![
        (0, b"QFI\xfb\0\0\0\x03"),
        (24, &[0, 0, 0, 0, 0, 0x10, 0, 0]),
    ];
    all.extend_from_slice(parts);
    file(65_536, &all)
}

fn vmdk_of(descriptor: &str) -> Vec<u8> {
    file(
        256 * 1024,
        &[
            (0, b"KDMV\x01\0\0\0"),
            (12, &[8]),
            (28, &[1]),
            (36, &[20]),
            (512, descriptor.as_bytes()),
        ],
    )
}

const DESCRIPTOR: &str = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n\
    createType=\"monolithicSparse\"\nRW 8 SPARSE \"disk.vmdk\"\nddb.geometry.heads = \"16\"\n";

fn vhd_footer(kind: u8) -> Vec<u8> {
    file(512, &[(0, b"conectix"), (54, &[0x20]), (63, &[kind])])
}

#[test]
fn each_format_is_known_by_its_magic_and_tells_the_size_of_its_disk() {
    let vdi = [
        (0x40, &0xbeda_107f_u32.to_le_bytes()[..]),
        (0x4c, &[1]),
        (0x170, &[0, 0, 4]),
    ];
    let iso = [
        (0x8000, &b"\x01CD001"[..]),
        (0x8000 + 80, &[10]),
        (0x8000 + 128, &[0, 8]),
    ];
    let luks = [(0, &b"LUKS\xba\xbe\0\x01"[..]), (107, &[2])];
    let dynamic = [&vhd_footer(3)[..], &[7; 5000]].concat();
    let fixed = [&[7; 8192][..], &vhd_footer(2)].concat();
    for (format, bytes, size) in [
        ("raw", vec![7; 1000], Some(1000)),
        ("raw", Vec::new(), Some(0)),
        ("qcow2", qcow2_with(&[]), Some(1 << 20)),
        ("qcow2", qcow2_with(&[(7, &[2]), (72, &[9])]), Some(1 << 20)),
        ("vmdk", vmdk_of(DESCRIPTOR), Some(8 * 512)),
        ("vdi", file(4096, &vdi), Some(0x40000)),
        ("vhd", dynamic, Some(0x2000)),
        ("vhd", fixed, Some(0x2000)),
        ("vhdx", file(4096, &[(0, b"vhdxfile")]), None),
        ("iso", file(0x9000, &iso), Some(20_480)),
        ("luks", file(4096, &luks), Some(4096 - 1024)),
        ("gpt", file(4096, &[(510, &[0x55, 0xaa])]), Some(4096)),
        ("zvhd2", vec![7; 1000], None),
    ] {
        assert_eq!(inspect(format, &bytes).unwrap(), size, "{format}");
    }
}

#[test]
fn bytes_that_refer_to_other_files_are_refused_whatever_they_were_declared_as() {
    let parent = DESCRIPTOR.replace("ffffffff", "12345678");
    let outside = DESCRIPTOR.replace("disk.vmdk", "/etc/passwd");
    let above = DESCRIPTOR.replace("disk.vmdk", "..\\secret");
    let flat = DESCRIPTOR.replace("SPARSE", "FLAT");
    let several = DESCRIPTOR.replace("monolithicSparse", "twoGbMaxExtentFlat");
    let difference = [
        (0x40, &0xbeda_107f_u32.to_le_bytes()[..]),
        (0x4c, &[4]),
        (0x170, &[1]),
    ];
    for (format, bytes) in [
        ("qcow2", qcow2_with(&[(15, &[104])])),
        ("qcow2", qcow2_with(&[(79, &[1 << 2])])),
        ("vmdk", vmdk_of(&parent)),
        ("vmdk", vmdk_of(&outside)),
        ("vmdk", vmdk_of(&above)),
        ("vmdk", vmdk_of(&flat)),
        ("vmdk", vmdk_of(&several)),
        ("vmdk", DESCRIPTOR.as_bytes().to_vec()),
        ("vdi", file(4096, &difference)),
        ("vhd", [&vhd_footer(4)[..], &[7; 5000]].concat()),
    ] {
        for declared in [format, "raw", "zvhd2"] {
            let why = refusal(declared, &bytes);
            assert!(why.starts_with("The image refers to "), "{declared}: {why}");
        }
    }
}

#[test]
fn bytes_in_another_format_than_the_declared_one_are_refused() {
    assert_eq!(
        refusal("qcow2", b"not a qcow2 at all"),
        "Image content (raw) does not match its disk_format (qcow2)."
    );
    assert_eq!(
        refusal("vhd", &qcow2_with(&[])),
        "Image content (qcow2) does not match its disk_format (vhd)."
    );
    for format in ["vmdk", "vdi", "vhd", "vhdx", "iso", "luks", "gpt", "qcow2"] {
        refusal(format, b"");
        refusal(format, &[7; 200_000]);
    }
    // As in Glance, a raw disk may hold what looks like another format: its size is that of its bytes.
    assert_eq!(inspect("raw", &qcow2_with(&[])).unwrap(), Some(65_536));
}

#[test]
fn what_breaks_its_formats_rules_or_is_in_two_formats_is_refused() {
    let two = qcow2_with(&[(0x8001, b"CD001")]);
    let qed = file(4096, &[(0, b"QED\0")]);
    for bytes in [
        qcow2_with(&[(7, &[4])]),
        qcow2_with(&[(79, &[1 << 4])]),
        b"QFI\xfb\0\0\0\x03".to_vec(),
        vmdk_of("no such line"),
        vmdk_of(""),
        two,
        qed,
    ] {
        refusal("raw", &bytes);
    }
}

#[test]
fn a_streamed_vmdk_whose_footer_is_another_header_is_refused() {
    let mut bytes = vmdk_of(&DESCRIPTOR.replace("monolithicSparse", "streamOptimized"));
    bytes[56..64].fill(0xff);
    let header = bytes[..512].to_vec();
    let footer = bytes.len() - 1024;
    bytes[footer..footer + 512].copy_from_slice(&header);
    assert_eq!(inspect("vmdk", &bytes).unwrap(), Some(8 * 512));
    bytes[footer + 28] = 2;
    refusal("vmdk", &bytes);
}

#[test]
fn a_refusal_comes_while_the_bytes_still_do() {
    let mut inspector = Inspector::new("qcow2");
    assert!(inspector.feed(&[7; HEAD - 1]).is_ok());
    assert!(inspector.feed(&[7]).is_err());
}

proptest! {
    #[test]
    fn how_the_bytes_are_cut_changes_nothing(
        cuts in prop::collection::vec(1_usize..70_000, 1..40),
        kind in 0_usize..4,
    ) {
        let fixed = [&[7; 200_000][..], &vhd_footer(2)].concat();
        let (declared, bytes) = [
            ("qcow2", qcow2_with(&[])),
            ("vmdk", vmdk_of(DESCRIPTOR)),
            ("vhd", fixed),
            ("raw", vec![7; 300_000]),
        ][kind].clone();
        let mut inspector = Inspector::new(declared);
        let mut rest = bytes.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (part, left) = rest.split_at((*cut).min(rest.len()));
            inspector.feed(part).unwrap();
            rest = left;
        }
        let size = inspector.finish().unwrap().map(ByteSize::bytes);
        prop_assert_eq!(size, inspect(declared, &bytes).unwrap());
    }

    #[test]
    fn no_bytes_make_it_panic(
        magic in prop::sample::select(vec![&b"QFI\xfb"[..], b"KDMV", b"conectix", b"vhdxfile", b"LUKS\xba\xbe", b""]),
        noise in prop::collection::vec(any::<u8>(), 0..2000),
        declared in prop::sample::select(crate::image::DISK_FORMATS),
    ) {
        let _ = inspect(declared, &[magic, &noise].concat());
    }
}
