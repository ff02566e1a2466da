//! The inspection of images: every format, every refusal, and what no bytes may do to it.

#[path = "inspect/archives.rs"]
mod archives;
#[path = "inspect/fuzz.rs"]
mod fuzz;
#[path = "inspect/hostile.rs"]
mod hostile;
#[path = "inspect/samples.rs"]
mod samples;
#[path = "inspect/verified.rs"]
mod verified;

use calotype_core::error::{ErrorKind, Result};
use calotype_core::inspect::Inspector;
use calotype_core::size::ByteSize;

use samples::Sample;

fn inspect(sample: &Sample) -> Result<Option<u64>> {
    let mut inspector = Inspector::new(sample.format, sample.container);
    inspector.feed(&sample.bytes)?;
    Ok(inspector.finish()?.map(ByteSize::bytes))
}

#[test]
fn every_format_is_known_and_tells_the_size_of_its_disk() {
    for sample in samples::good() {
        let name = sample.name;
        let size = inspect(&sample).unwrap_or_else(|error| panic!("{name}: {}", error.message()));
        assert_eq!(Ok(size), sample.outcome, "{name}");
    }
}

#[test]
fn every_hostile_image_is_refused_with_its_reason() {
    let mut wrong = Vec::new();
    for sample in hostile::hostile() {
        let what = format!("{} as {}", sample.name, sample.format);
        let reason = sample.outcome.expect_err("a reason");
        match inspect(&sample) {
            Err(error) if error.kind() != ErrorKind::UnsupportedMediaType => {
                wrong.push((what, error.to_string()));
            }
            Err(error) if error.message().starts_with(reason) => {}
            Err(error) => wrong.push((what, error.message().to_owned())),
            Ok(size) => wrong.push((what, format!("{size:?}"))),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn bytes_that_refer_to_other_files_are_refused_whatever_they_were_declared_as() {
    for sample in hostile::hostile() {
        let is_foreign = |reason: &&str| reason.starts_with("The image refers to");
        if sample.container != "bare" || !sample.outcome.as_ref().is_err_and(is_foreign) {
            continue;
        }
        for declared in [
            "raw", "ami", "zvhd", "zvhd2", "ploop", "iso", "qcow2", "vhd",
        ] {
            let bytes = sample.bytes.clone();
            let other = samples::sample(sample.name, declared, bytes, Ok(None));
            assert!(inspect(&other).is_err(), "{} as {declared}", sample.name);
        }
    }
}

#[test]
fn mutated_images_neither_break_it_nor_depend_on_how_they_are_cut() {
    let (good, hostile) = (samples::good(), hostile::hostile());
    let all: Vec<&Sample> = good.iter().chain(&hostile).collect();
    all.iter().for_each(|sample| fuzz::check(sample).unwrap());
    let done = fuzz::run(&all, 1, 5_000).unwrap_or_else(|why| panic!("{why}"));
    assert!(done.accepted > 0 && done.refused > 0, "{done:?}");
}

#[test]
fn a_flipped_bit_under_a_checksum_is_seen() {
    let is_summed =
        |sample: &&Sample| matches!(sample.name, "dynamic vhd" | "fixed vhd" | "gpt" | "vhdx");
    let good = samples::good();
    for sample in good.iter().filter(is_summed) {
        let summed: Vec<usize> = match sample.name {
            "dynamic vhd" => (0..1536).chain(3072..3584).collect(),
            "fixed vhd" => (2048..2560).collect(),
            "gpt" => (512..604).chain(1024..1536).collect(),
            // Of the two headers the newer one counts while it is whole; of the two tables, the first.
            _ => (196_608..196_700).chain([262_143, 260_000]).collect(),
        };
        for at in summed {
            let mut bytes = sample.bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            let flipped = samples::sample(sample.name, sample.format, bytes, Ok(None));
            assert!(inspect(&flipped).is_err(), "{}: {at}", sample.name);
        }
    }
}

#[test]
fn an_image_that_is_cut_anywhere_is_refused_or_lacks_nothing_that_is_referred_to() {
    let formats = ["qcow2", "vmdk", "vdi", "vhd", "iso", "gpt"];
    for sample in samples::good() {
        if !formats.contains(&sample.format) || sample.name == "bootable iso" {
            continue;
        }
        // The last cluster, grain or sector of padding may be cut short: readers take the rest for zeros.
        let unit = match sample.name {
            "qcow2" | "qcow2, version 2" => 512,
            "sparse vmdk" => 4096,
            "iso" => 2048,
            // Its partition ends before the disk does.
            "mbr" => 53 * 512,
            _ => 0,
        };
        let bytes = &sample.bytes;
        for length in (0..bytes.len() - unit).step_by(61) {
            let cut = bytes[..length].to_vec();
            let cut = samples::sample(sample.name, sample.format, cut, Ok(None));
            assert!(inspect(&cut).is_err(), "{}: {length}", sample.name);
        }
    }
}

#[test]
fn a_refusal_comes_while_the_bytes_still_do() {
    let mut inspector = Inspector::new("qcow2", "bare");
    assert!(inspector.feed(&[7; 65_535]).is_ok());
    assert!(inspector.feed(&[7]).is_err());
    assert!(inspector.finish().is_err());
}

#[test]
fn the_largest_tables_are_looked_at_in_two_mebibytes() {
    // As large as a first level may be, in clusters of 512 bytes, and as many tables behind it as are followed.
    const ENTRIES: usize = (1 << 20) / 8 - 128;
    let tables = 1024 + ENTRIES * 8;
    let at = |number: usize| samples::be64((tables + (number % 65_000 + 1) * 512) as u64);
    let entries: Vec<u8> = (0..64_000).flat_map(at).collect();
    let length = samples::be32(ENTRIES as u32);
    let parts = [(36, &length[..]), (1024, &entries)];
    let bytes = samples::with(samples::qcow2(), &parts);
    let bytes = samples::with(bytes, &[(tables + 66_000 * 512, &[0])]);
    let mut inspector = Inspector::new("qcow2", "bare");
    for chunk in bytes.chunks(1 << 20) {
        inspector.feed(chunk).unwrap();
    }
    assert!(inspector.finish().is_ok());
    assert!(inspector.cost().memory > 1 << 20, "{:?}", inspector.cost());
    assert!(inspector.cost().memory < 2 << 20, "{:?}", inspector.cost());
}
