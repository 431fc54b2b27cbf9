//! OpenPGP messages: compressed, in parts, malformed and damaged.

use super::*;

#[test]
fn every_usual_compression_is_read() {
    let key = Key::new("acme");
    for compression in
        [None, Some(CompressionAlgorithm::Zip), Some(CompressionAlgorithm::Zlib), Some(CompressionAlgorithm::BZip2)]
    {
        let message = key.sign_with(&payload(IMAGE, DIGEST), at(SIGNED), HashAlgorithm::SHA256, compression, |b| b);
        by(&key).proof(std::slice::from_ref(&message));
        let mut followed = message;
        followed.extend(good(&key));
        // As containers/image: what follows a compressed packet is ignored, what follows an uncompressed message spoils it.
        let expected = compression.is_none().then_some(Code::MalformedSignature);
        assert_eq!(by(&key).code(&[followed]), expected, "{compression:?}");
    }
}

#[test]
fn a_payload_that_is_not_strict_is_malformed() {
    let key = Key::new("acme");
    let text = String::from_utf8(payload(IMAGE, DIGEST)).unwrap();
    for bad in
        [text.replace("\"optional\"", "\"more\""), text.replace("}}", "},\"x\":1}"), "{}".into(), text[1..].into()]
    {
        assert_eq!(by(&key).code(&[key.sign(bad.as_bytes(), at(SIGNED))]), Some(Code::MalformedSignature), "{bad}");
    }
}

#[test]
fn what_is_not_one_message_of_one_signer_is_malformed() {
    let (key, second) = (Key::new("acme"), Key::new("second"));
    let question = scenario(vec![requirement(&[key.signer("acme-release"), second.signer("second")])]);
    let body = payload(IMAGE, DIGEST);
    let plain = key.sign_with(&body, at(SIGNED), HashAlgorithm::SHA256, None, |builder| builder);
    let packets: Vec<Packet> = PacketPile::from_bytes(&plain).unwrap().into_children().collect();
    let [one_pass, literal, signature] = <[Packet; 3]>::try_from(packets).unwrap();
    let pile = |packets: &[&Packet]| PacketPile::from(packets.iter().map(|&p| p.clone()).collect::<Vec<_>>());

    let mut two_signers = Vec::new();
    let message = MessageSigner::with_template(
        Writer::new(&mut two_signers),
        key.pair(),
        SignatureBuilder::new(SignatureType::Binary),
    );
    let message = message.unwrap().add_signer(second.pair()).unwrap();
    let mut message = LiteralWriter::new(message.build().unwrap()).build().unwrap();
    message.write_all(&body).unwrap();
    message.finalize().unwrap();

    let mut armored = sequoia_openpgp::armor::Writer::new(Vec::new(), sequoia_openpgp::armor::Kind::Message).unwrap();
    armored.write_all(&good(&key)).unwrap();

    let mut nested = Vec::new();
    let outer = Compressor::new(Writer::new(&mut nested)).build().unwrap();
    let inner = Compressor::new(outer).build().unwrap();
    let signed = MessageSigner::with_template(inner, key.pair(), SignatureBuilder::new(SignatureType::Binary)).unwrap();
    let mut literal_writer = LiteralWriter::new(signed.build().unwrap()).build().unwrap();
    literal_writer.write_all(&body).unwrap();
    literal_writer.finalize().unwrap();

    for (name, message) in [
        ("two signers", two_signers),
        ("armored", armored.finalize().unwrap()),
        ("clear-signed", b"-----BEGIN PGP SIGNED MESSAGE-----\n\n{}\n-----BEGIN PGP SIGNATURE-----\n".to_vec()),
        ("detached", pile(&[&signature]).to_vec().unwrap()),
        ("signature last", pile(&[&literal, &signature]).to_vec().unwrap()),
        ("unsigned", pile(&[&literal]).to_vec().unwrap()),
        ("two literals", pile(&[&one_pass, &literal, &literal, &signature]).to_vec().unwrap()),
        ("two signatures", pile(&[&one_pass, &literal, &signature, &signature]).to_vec().unwrap()),
        ("two messages", [plain.clone(), plain.clone()].concat()),
        ("something after it", [plain.clone(), b"x".to_vec()].concat()),
        ("nested compression", nested),
        ("empty", vec![]),
        ("lookaside prefix", [b"\0simple-signing\n".to_vec(), plain.clone()].concat()),
        ("a certificate", key.public()),
    ] {
        assert_eq!(question.code(&[message]), Some(Code::MalformedSignature), "{name}");
    }
    question.proof(&[plain]);
}

#[test]
fn a_message_in_parts_and_under_every_kind_of_header_is_read() {
    let key = Key::new("acme");
    let old = good(&key);
    // The writer of the tests makes one packet in one part: its content is put under other headers.
    let mut compressed = flate2::write::DeflateEncoder::new(vec![1], flate2::Compression::best());
    let plain = key.sign_with(&payload(IMAGE, DIGEST), at(SIGNED), HashAlgorithm::SHA256, None, |builder| builder);
    compressed.write_all(&plain).unwrap();
    let body = compressed.finish().unwrap();
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    let two = u16::try_from(body.len() - 192).unwrap().to_be_bytes();
    let rest = u8::try_from(body.len() - 256 - 64).unwrap();
    assert!(rest < 192);
    let messages = [
        old,
        [&[0xa3][..], &body].concat(),
        [&[0xa1][..], &length, &body].concat(),
        [&[0xa2, 0, 0][..], &length, &body].concat(),
        [&[0xc8, 192 + two[0], two[1]][..], &body].concat(),
        [&[0xc8, 255, 0, 0][..], &length, &body].concat(),
        [&[0xc8, 224 + 8][..], &body[..256], &[224 + 6], &body[256..320], &[rest], &body[320..]].concat(),
    ];
    for message in &messages {
        by(&key).proof(std::slice::from_ref(message));
        let cut = &message[..message.len() - 40];
        assert_eq!(by(&key).code(&[cut.to_vec()]), Some(Code::MalformedSignature));
    }
}

#[test]
fn a_signature_that_was_damaged_on_its_way_costs_no_try() {
    let key = Key::new("acme");
    let plain = key.sign_with(&payload(IMAGE, DIGEST), at(SIGNED), HashAlgorithm::SHA256, None, |builder| builder);
    let place = plain.windows(10).position(|window| window == b"1764000000").unwrap();
    let damaged = (0..200_u8).map(|number| {
        let mut message = plain.clone();
        message[place + 1 + usize::from(number % 9)] = b'0' + number / 20;
        message
    });
    let mut signatures: Vec<Vec<u8>> = damaged.filter(|message| *message != plain).collect();
    let question = Scenario { tries: 1, ..by(&key) };
    assert_eq!(question.code(&signatures), Some(Code::InvalidSignature));
    signatures.push(plain);
    question.proof(&signatures);
}

#[test]
fn a_signature_that_does_not_belong_to_its_payload_is_invalid() {
    let key = Key::new("acme");
    let mut message = key.sign_with(&payload(IMAGE, OTHER), at(SIGNED), HashAlgorithm::SHA256, None, |builder| builder);
    let place = message.windows(OTHER.len()).position(|window| window == OTHER.as_bytes()).unwrap();
    message[place..place + OTHER.len()].copy_from_slice(DIGEST.as_bytes());
    let examination = by(&key).with(&[message]);
    let Err(Refusal::InvalidSignature { why, .. }) = examination.result else { panic!("{examination:?}") };
    assert_eq!(why, Invalid::Cryptography);
    assert_eq!(examination.signatures[0].digest, None, "a forged payload proves nothing");
}

#[test]
fn a_critical_part_that_is_not_known_spoils_a_signature() {
    use sequoia_openpgp::packet::signature::subpacket::NotationDataFlags;
    let key = Key::new("acme");
    let noted = |critical| {
        key.sign_with(&payload(IMAGE, DIGEST), at(SIGNED), HashAlgorithm::SHA256, None, |builder| {
            let flags = NotationDataFlags::empty().set_human_readable();
            builder.add_notation("only-for@example.com", b"staging", flags, critical).unwrap()
        })
    };
    by(&key).proof(&[noted(false)]);
    let refusal = by(&key).with(&[noted(true)]).result.unwrap_err();
    assert!(matches!(refusal, Refusal::InvalidSignature { why: Invalid::Critical, .. }), "{refusal:?}");
}
