package fsverity

import (
	"strings"
	"testing"
)

// pattern is n bytes that don't repeat block by block: byte i is the highest of
// the 32-bit product of i and 2654435761.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(uint32(i) * 2654435761 >> 24)
	}
	return b
}

// TestGolden holds digests that `fsverity digest` of fsverity-utils 1.5 printed
// for pattern: a change here is a break of every store.
func TestGolden(t *testing.T) {
	tests := []struct {
		size           int
		sha256, sha512 string
	}{
		{0, "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95",
			"ccf9e5aea1c2a64efa2f2354a6024b90dffde6bbc017825045dce374474e13d10adb9dadcc6ca8e17a3c075fbd31336e8f266ae6fa93a6c3bed66f9e784e5abf"},
		{1, "b803429503d95915829b29fdbc8bbad142f3abfd11b1cadf5526582e685c0551",
			"9fcf5172b085b1c8f9365eecb37a1869e193a4705654a5829f11939cd01d5c0fd97276be8cd9d49f76cfc8dcfeb80f8128e3548a1de50b56912b9e3fc7bde27b"},
		{4095, "956ea0b84f7e7eef7459dff1fab1e1b63afa1218cafd912edc74a4920f3a4b1c",
			"6e976c7f12bdc002b0b0435acdda93d7fe9249dc2d69deaafb9fcc716f7e55a103ec52dbf797bb4402228aa1f4f3549fa5544ab95b32662acf7ef21977d9d845"},
		{4096, "62ea1e9d76372bc1108c156dcc3c9620ef5f8fcf7e44a5360be670345571c2d6",
			"56663311692ebe010ac212e9368aef1ab1c9c2a40bdc99f529f2b911aab532ab3042bccbb1706c294a333abc77785eaed5b6091f0b2e4cf991790ffe757bd5f9"},
		{4097, "eb4a46a1cf3ab001929d0d7441e891b8bc4d1806dd6f9a1e65f4aecdd096bafc",
			"fa29beb01db9d10488ce5604e279de15aad12452a0ba6f4fec205d6952f92d526b8418771f5955f6ed37427b4410d8f316e73ec9e9c83d0bbca44a1e6978e47a"},
		{262143, "293240f50cbb10fd0da12186de6957e2825df879092dab129dc9c5dc57a01e13",
			"fd9eb1116cfe0f24d685e03b81b994ee45a1af2b36720e996c538dec94ad47e9993c21f1e4311db717c2f4a14b5008d0f72561bf264ef8e1382b0636a0397129"},
		{262144, "6f903232393e6f933210b5d3c11e3405768a5cc6d300fcc406188040356ec035",
			"f10258b956111ce5f9eb044705a46334c0ecfdbb2f6c4f837d069d0747149f40baf8603df195733e252b1bde6d5de7903b55370f11ebaad17b1baa27620c5fc7"},
		{262145, "e8ec473cc44bce990705fe4b3f91b89362e1b15f2251232564145f48a37f2d3b",
			"a60b061f328792a68a4915c853daa2c99b3e2522b08fbc42b4c4185f16022753a6bc91d56b9a3093f9d55b1aa92ca17564054e36dd783f3c116b1a934fee4a12"},
		{524287, "668695f5485b597e387f44c2882a8d8807e5455bdb2933f162e172322d16bda3",
			"1067f9be986496a40ad73b2be674d455738cea1686b7b0ec44ec3af6fded578bf9d0d4833f75be3926e09772ccf2147a62f835a24258f339027cbc02b117c68a"},
		{524288, "c4ef1dc07cbb706be2351a9450f5b3385aafe6d4f65929e0ff15fc8994925940",
			"6c9effa142985c3b486749f050736415401a9f1796791ddb3dbf0c4b0085fc8a2b31af76be3ca3415e78fd644e0266a26b52fd8cd3c92d829124c37816363e4a"},
		{524289, "ec6c483e9da35c36a7c87f0f25d7fbbdb4c319edf2414d8739884ed3fd7b5988",
			"786d1f5a552ccc9f5d2f1e5642120ffcb401d5fa5a498b44406630893565d7766788805fc6cc9e39bf9625f9d1990ab32a2e1c9078cd6208e843adc956b95ac0"},
	}
	for _, tt := range tests {
		data := pattern(tt.size)
		if got := Sum(SHA256, data).String(); got != tt.sha256 {
			t.Errorf("sha256 of %d bytes is %s, want %s", tt.size, got, tt.sha256)
		}
		if got := Sum(SHA512, data).String(); got != tt.sha512 {
			t.Errorf("sha512 of %d bytes is %s, want %s", tt.size, got, tt.sha512)
		}
	}
}

// TestKnown holds digests that other composefs tools agree on, of SHA-512 the
// first digits. Those of zeros must come out of holes too.
func TestKnown(t *testing.T) {
	tests := []struct {
		content        string
		sha256, sha512 string
	}{
		{"hello world", "1e2eaa4202d750a41174ee454970b92c1bc2f925b1e35076d8c7d5f56362ba64", "18430270729d162d"},
		{"", "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95", "ccf9e5aea1c2a64e"},
		{zeros(4095), "5372beb83c78537c8970c8361e3254119fafdf1763854ecd57d3f0fe2da7c719", "e2397c3e051f7ab0"},
		{zeros(4096), "babc284ee4ffe7f449377fbf6692715b43aec7bc39c094a95878904d34bac97e", "928922686c4caf32"},
		{zeros(4097), "093756e4ea9683329106d4a16982682ed182c14bf076463a9e7f97305cbac743", "4339f5da3788e60f"},
		{zeros(524288), "2d15bd7832895de85aa3d5bdfb57251e27bbec75ff467408340ab3eba858a2e1", "80e3a9dbfb94da75"},
		{zeros(524289), "e4143a5705610b7ad2eb85482cfc033c7062a89b9faf9118603f592d53fd10e0", "7d26d3e731675b1e"},
	}
	for _, tt := range tests {
		for _, a := range algorithms {
			want := map[Algorithm]string{SHA256: tt.sha256, SHA512: tt.sha512}[a]
			if got := Sum(a, []byte(tt.content)).String(); !strings.HasPrefix(got, want) {
				t.Errorf("%v of %d bytes is %s, want %s", a, len(tt.content), got, want)
			}
			if strings.Trim(tt.content, "\x00") != "" {
				continue
			}
			h := NewHasher(a)
			h.WriteZeros(int64(len(tt.content)))
			if got := h.Sum().String(); !strings.HasPrefix(got, want) {
				t.Errorf("%v of a hole of %d bytes is %s, want %s", a, len(tt.content), got, want)
			}
		}
	}
}

func zeros(n int) string { return strings.Repeat("\x00", n) }
