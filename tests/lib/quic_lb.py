"""QUIC connection IDs as a server makes them (draft-ietf-quic-load-balancers-21, section 5), and datagrams that carry them."""

from tests.lib.aes import encrypt, expand_key

LONGEST = 20  # QUIC version 1


def half_of(value, nibbles, left):
    """A half as the passes see it: whole bytes, with an empty nibble at its end (left) or its beginning (right)."""
    digits = f"{value:0{nibbles}x}"
    if nibbles % 2:
        digits = digits + "0" if left else "0" + digits
    return bytes.fromhex(digits)


def four_passes(key, plain):
    keys, nibbles = expand_key(key), len(plain)
    value = int.from_bytes(plain, "big")
    halves = [value >> 4 * nibbles, value & (1 << 4 * nibbles) - 1]  # left, right; `nibbles` digits each
    for number in range(1, 5):
        from_left = number % 2 == 1
        source = half_of(halves[0 if from_left else 1], nibbles, from_left)
        cipher = encrypt(keys, source.ljust(14, b"\0") + bytes([len(plain), number])).hex()
        digits = cipher[:len(source) * 2]
        mask = (digits[1:] if from_left else digits[:-1]) if nibbles % 2 else digits
        halves[1 if from_left else 0] ^= int(mask, 16)
    return (halves[0] << 4 * nibbles | halves[1]).to_bytes(len(plain), "big")


def make_cid(config_id, server_id, nonce, key=None, more=b""):
    """All but the last argument as the configuration has it: bytes; more: what the server adds for itself."""
    block = server_id + nonce
    if key is not None:
        block = encrypt(expand_key(key), block) if len(block) == 16 else four_passes(key, block)
    cid = bytes([config_id << 5 | len(block) + len(more)]) + block + more
    assert len(cid) <= LONGEST
    return cid


def short_header(cid, payload=b"protected"):
    return b"\x40" + cid + payload


def long_header(cid, source_cid=b"", payload=b"protected", version=1):
    return b"\xc0" + version.to_bytes(4, "big") + bytes([len(cid)]) + cid + bytes([len(source_cid)]) + source_cid + payload
