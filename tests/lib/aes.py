"""AES-128 (FIPS 197) a second time, slow and plain, to compare lb's with."""


def _times2(x):
    return (x << 1 ^ (0x11B if x & 0x80 else 0)) & 0xFF


def _multiply(a, b):
    result = 0
    while b:
        result ^= a if b & 1 else 0
        a, b = _times2(a), b >> 1
    return result


def _sbox_of(x):
    inverse = next((y for y in range(256) if _multiply(x, y) == 1), 0)
    return 0x63 ^ inverse ^ _left(inverse, 1) ^ _left(inverse, 2) ^ _left(inverse, 3) ^ _left(inverse, 4)


def _left(x, n):
    return (x << n | x >> 8 - n) & 0xFF


SBOX = [_sbox_of(x) for x in range(256)]


def expand_key(key):
    words = [list(key[i:i + 4]) for i in range(0, 16, 4)]
    constant = 1
    for i in range(4, 44):
        word = list(words[i - 1])
        if i % 4 == 0:
            word = [SBOX[b] for b in word[1:] + word[:1]]
            word[0] ^= constant
            constant = _times2(constant)
        words.append([a ^ b for a, b in zip(word, words[i - 4])])
    return [sum(words[i:i + 4], []) for i in range(0, 44, 4)]


def encrypt(keys, block):
    state = [a ^ b for a, b in zip(block, keys[0])]
    for number, key in enumerate(keys[1:], 1):
        state = [SBOX[state[(i + 4 * (i % 4)) % 16]] for i in range(16)]  # SubBytes, ShiftRows
        if number < 10:
            columns = [state[i:i + 4] for i in range(0, 16, 4)]
            state = [_times2(c[r]) ^ _times2(c[(r + 1) % 4]) ^ c[(r + 1) % 4] ^ c[(r + 2) % 4] ^ c[(r + 3) % 4]
                     for c in columns for r in range(4)]
        state = [a ^ b for a, b in zip(state, key)]
    return bytes(state)


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))
