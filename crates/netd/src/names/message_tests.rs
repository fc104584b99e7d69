use super::*;

/// Makes a query for a name in its wire form.
fn query(name: &[u8], kind: u16, flags: u16, more: &[u8], additional: u16) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34];
    for value in [flags, 1, 0, 0, additional] {
        bytes.extend_from_slice(&value.to_be_bytes());
    }
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&1u16.to_be_bytes());
    bytes.extend_from_slice(more);
    bytes
}

const WEB: &[u8] = b"\x03WeB\x03net\0";
/// An OPT record for datagrams of 1232 bytes.
const OPT: &[u8] = &[0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];

#[test]
fn a_question_is_read_in_lower_case_and_repeated_as_it_was() {
    let mut bytes = query(WEB, TYPE_A, RD, OPT, 1);
    let length = bytes.len();
    bytes.extend_from_slice(b"trailing");
    let query = parse(&bytes).unwrap();
    assert_eq!(query.name.text(), Some(&b"web.net"[..]));
    assert_eq!(query.message.len(), length);
    assert_eq!(query.udp_bytes_max(), 1232);
    let mut out = Vec::new();
    let records = [Record::A(Ipv4Addr::new(10, 0, 0, 2))];
    query.answer(Rcode::NoError, records.into_iter(), 512, &mut out);
    // Response, recursion desired and available; one question, one answer, an OPT.
    assert_eq!(out[..12], [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 1]);
    assert_eq!(&out[12..21], WEB);
    assert_eq!(
        out[25..41],
        [0xc0, 12, 0, 1, 0, 1, 0, 0, 2, 88, 0, 4, 10, 0, 0, 2]
    );
    assert_eq!(out.len(), 41 + OPT_BYTES);
}

#[test]
fn odd_messages_are_refused_and_never_followed() {
    let fault = |bytes: &[u8]| parse(bytes).map(|_| ()).unwrap_err();
    assert_eq!(fault(&[]), Fault::Ignored);
    assert_eq!(fault(&[0; 11]), Fault::Ignored);
    // An answer is no query: two servers must not talk to each other for ever.
    assert_eq!(fault(&query(WEB, 1, QR, &[], 0)), Fault::Ignored);
    assert_eq!(
        fault(&query(WEB, 1, 5 << 11, &[], 0)),
        Fault::Refused(Rcode::NotImplemented)
    );
    let malformed: &[(&str, Vec<u8>)] = &[
        ("no question", vec![0; 12]),
        ("a pointer to itself", query(&[0xc0, 12], 1, 0, &[], 0)),
        (
            "a pointer forward",
            query(&[1, b'a', 0xc0, 20], 1, 0, &[], 0),
        ),
        (
            "a label of an unknown kind",
            query(&[0x41, b'a', 0], 1, 0, &[], 0),
        ),
        (
            "a name without end",
            query(&[3, b'a', b'b'], 1, 0, &[], 0)[..15].to_vec(),
        ),
        (
            "a question without class",
            query(WEB, 1, 0, &[], 0)[..23].to_vec(),
        ),
        ("a record that is not there", query(WEB, 1, 0, &[], 1)),
        ("a record cut short", query(WEB, 1, 0, &OPT[..9], 1)),
        (
            "data longer than the message",
            query(WEB, 1, 0, &[0, 0, 16, 0, 1, 0, 0, 0, 0, 255, 255], 1),
        ),
        ("two OPT records", query(WEB, 1, 0, &[OPT, OPT].concat(), 2)),
        (
            "an OPT record elsewhere than at the root",
            query(WEB, 1, 0, &[&[0xc0, 12], &OPT[1..]].concat(), 1),
        ),
        (
            "too long a name",
            query(&[[63; 64].repeat(4), vec![0]].concat(), 1, 0, &[], 0),
        ),
    ];
    for (what, bytes) in malformed {
        assert_eq!(fault(bytes), MALFORMED, "{what}");
    }
    // A name that ends in a pointer is fine where nobody reads it.
    let compressed = [0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 0, 0, 0];
    assert!(parse(&query(WEB, 1, 0, &compressed, 1)).is_ok());
}

#[test]
fn the_longest_name_is_read_and_a_longer_one_is_not() {
    // 3 x 64 + 62 + 1 = 255 bytes.
    let mut longest = [63; 64].repeat(3);
    longest.push(61);
    longest.extend([b'a'; 61]);
    longest.push(0);
    assert_eq!(longest.len(), NAME_BYTES_MAX);
    let bytes = query(&longest, 1, 0, &[], 0);
    assert_eq!(parse(&bytes).unwrap().name.text().unwrap().len(), 253);
    longest[192] = 62;
    longest.insert(200, b'a');
    assert_eq!(
        parse(&query(&longest, 1, 0, &[], 0)).unwrap_err(),
        MALFORMED
    );
}

#[test]
fn a_dot_within_a_label_does_not_stand_for_two_labels() {
    let bytes = query(b"\x07web.net\0", 1, 0, &[], 0);
    assert_eq!(parse(&bytes).unwrap().name.text(), None);
}

#[test]
fn what_does_not_fit_is_left_out_and_the_answer_says_so() {
    let records = || (0..100).map(|last| Record::A(Ipv4Addr::new(10, 0, 0, last)));
    let mut out = Vec::new();
    for (more, count, additional) in [(&[][..], 30, 0), (OPT, 29, 1)] {
        let bytes = query(WEB, 1, 0, more, additional);
        let query = parse(&bytes).unwrap();
        query.answer(Rcode::NoError, records(), 512, &mut out);
        assert!(out.len() <= 512);
        assert_eq!(u16_at(&out, 2).unwrap() & TC, TC);
        assert_eq!(u16_at(&out, 6), Some(count));
        query.answer(Rcode::NoError, records(), TCP_BYTES_MAX, &mut out);
        assert_eq!(u16_at(&out, 2).unwrap() & TC, 0);
        assert_eq!(u16_at(&out, 6), Some(100));
    }
}

#[test]
fn only_the_answer_to_the_question_is_taken() {
    let asked = query(WEB, TYPE_A, RD, &[], 0);
    let question = parse(&asked).unwrap();
    let question = question.question();
    let mut out = Vec::new();
    let answered = |rcode: Rcode| {
        let bytes = query(b"\x03wEb\x03net\0", TYPE_A, QR | RA | rcode as u16, &[], 0);
        judge(&bytes, 0x1234, question)
    };
    assert_eq!(answered(Rcode::NoError), Verdict::Answer);
    assert_eq!(answered(Rcode::ServerFailure), Verdict::Failed);
    assert_eq!(answered(Rcode::Refused), Verdict::Failed);
    assert_eq!(judge(&asked, 0x1234, question), Verdict::NotOurs);
    for (what, id, bytes) in [
        ("number", 0x1235, query(WEB, TYPE_A, QR, &[], 0)),
        ("type", 0x1234, query(WEB, TYPE_AAAA, QR, &[], 0)),
        (
            "name",
            0x1234,
            query(b"\x03wax\x03net\0", TYPE_A, QR, &[], 0),
        ),
        ("length", 0x1234, query(b"\x03web\0", TYPE_A, QR, &[], 0)),
    ] {
        assert_eq!(
            judge(&bytes, id, question),
            Verdict::NotOurs,
            "another {what}"
        );
    }
    refuse(&asked, Rcode::FormatError, &mut out);
    out[2] |= 0x80;
    assert_eq!(judge(&out, 0x1234, question), Verdict::Failed);
    assert_eq!(judge(&out[..11], 0x1234, question), Verdict::NotOurs);
}

#[test]
fn a_taken_answer_has_the_clients_number_and_letters() {
    let asked = query(WEB, TYPE_A, RD, &[], 0);
    let question = parse(&asked).unwrap();
    let mut reply = query(b"\x03web\x03net\0", TYPE_A, QR, &[], 0);
    reply[..2].copy_from_slice(&[9, 9]);
    adopt(&mut reply, &question);
    assert_eq!(reply[..2], asked[..2]);
    assert_eq!(&reply[12..21], WEB);
    let mut out = Vec::new();
    cut(&reply, &question, &mut out);
    assert_eq!(out.len(), asked.len());
    assert_eq!(u16_at(&out, 2).unwrap() & (QR | TC), QR | TC);
}

#[test]
fn names_that_cannot_be_written_are_left_out() {
    let bytes = query(WEB, TYPE_PTR, 0, &[], 0);
    let query = parse(&bytes).unwrap();
    let long = "a".repeat(64);
    let records = ["", "a..b", &long, "web.net"].map(Record::Ptr);
    let mut out = Vec::new();
    query.answer(Rcode::NoError, records.into_iter(), 512, &mut out);
    assert_eq!(u16_at(&out, 6), Some(1));
    assert!(out.ends_with(b"\x03web\x03net\0"));
}

/// Bytes at random, and good messages with bytes changed or cut off: nothing panics, and what is refused is small.
#[test]
fn no_message_does_harm() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let good = query(WEB, TYPE_A, RD, OPT, 1);
    let mut out = Vec::new();
    let (mut taken, mut refused) = (0, 0);
    for round in 0..200_000 {
        let mut bytes = if round % 2 == 0 {
            good.clone()
        } else {
            (0..random() % 80).map(|_| random() as u8).collect()
        };
        for _ in 0..random() % 4 {
            if !bytes.is_empty() {
                let at = random() as usize % bytes.len();
                bytes[at] = random() as u8;
            }
        }
        if random() % 4 == 0 {
            bytes.truncate(random() as usize % (bytes.len() + 1));
        }
        match parse(&bytes) {
            Ok(query) => {
                taken += 1;
                query.answer(Rcode::NoError, std::iter::empty(), 512, &mut out);
                assert!(out.len() <= query.message.len() + OPT_BYTES);
                judge(&out, 0x1234, query.question());
            }
            Err(Fault::Refused(rcode)) => {
                refused += 1;
                refuse(&bytes, rcode, &mut out);
                assert_eq!(out.len(), HEADER_BYTES);
            }
            Err(Fault::Ignored) => {}
        }
        judge(&bytes, 0x1234, WEB);
    }
    assert!(taken > 10_000 && refused > 10_000, "{taken} {refused}");
}
