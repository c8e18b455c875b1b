// Command logcheck holds a tiled log against its public key with nobody's code but the Go project's
// (golang.org/x/mod/sumdb) and Trillian's (github.com/transparency-dev/merkle).
//
// Usage: logcheck BASE VKEY, where BASE is the log's prefix as a URL, or a folder with the same files. A bearer token is
// taken from LOG_TOKEN. It prints one line and exits with 0 where every record, tile and proof is as the checkpoint says.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: logcheck BASE VKEY")
		os.Exit(2)
	}
	said, err := check(log{os.Args[1]}, os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "refused:", err)
		os.Exit(1)
	}
	fmt.Println(said)
}

// log is where the files are.
type log struct{ base string }

func (l log) get(path string) ([]byte, error) {
	if !strings.HasPrefix(l.base, "http") {
		return os.ReadFile(filepath.Join(l.base, filepath.FromSlash(strings.ReplaceAll(path, "?", "_"))))
	}
	request, err := http.NewRequest("GET", l.base+"/"+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("LOG_TOKEN"))
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", path, answer.Status)
	}
	return io.ReadAll(answer.Body)
}

// tiles implements tlog.TileReader; the height is not part of a C2SP path.
type tiles struct{ log }

func (t tiles) Height() int { return height }

func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range wanted {
		data, err := t.get(strings.Replace(tile.Path(), "tile/8/", "tile/", 1))
		if err != nil {
			return nil, err
		}
		found = append(found, data)
	}
	return found, nil
}

func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func check(l log, vkey string) (string, error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return "", err
	}
	signed, err := l.get("checkpoint")
	if err != nil {
		return "", err
	}
	tree, err := open(signed, verifier)
	if err != nil {
		return "", err
	}
	reader := tlog.TileHashReader(tree, tiles{l})
	entries, err := readEntries(l, tree.N)
	if err != nil {
		return "", err
	}
	for index := range entries {
		if err := checkRecord(l, tree, reader, verifier, entries, int64(index)); err != nil {
			return "", fmt.Errorf("record %d: %w", index, err)
		}
	}
	for old := int64(1); old <= tree.N; old += 1 + old/7 {
		if err := checkExtension(l, tree, reader, old); err != nil {
			return "", fmt.Errorf("tree of %d: %w", old, err)
		}
	}
	return fmt.Sprintf("%s: %d records", verifier.Name(), tree.N), nil
}

func open(signed []byte, verifier note.Verifier) (tlog.Tree, error) {
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 || lines[0] != verifier.Name() {
		return tlog.Tree{}, errors.New("not a checkpoint of this log")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	hash, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: hash}, err
}

func readEntries(l log, size int64) ([][]byte, error) {
	var entries [][]byte
	for first := int64(0); first < size; first += 1 << height {
		width := min(size-first, 1<<height)
		tile := tlog.Tile{H: height, L: -1, N: first >> height, W: int(width)}
		data, err := l.get(strings.Replace(tile.Path(), "tile/8/data/", "tile/entries/", 1))
		if err != nil {
			return nil, err
		}
		for len(data) >= 2 && len(data)-2 >= int(binary.BigEndian.Uint16(data)) {
			end := 2 + int(binary.BigEndian.Uint16(data))
			entries = append(entries, data[2:end])
			data = data[end:]
		}
		if len(data) != 0 || int64(len(entries)) != first+width {
			return nil, fmt.Errorf("the bundle at %d is malformed", first)
		}
	}
	return entries, nil
}

func checkRecord(l log, tree tlog.Tree, reader tlog.HashReader, verifier note.Verifier, entries [][]byte, index int64) error {
	hash := tlog.RecordHash(entries[index])
	path, err := tlog.ProveRecord(tree.N, index, reader)
	if err != nil {
		return err
	}
	if err := tlog.CheckRecord(path, tree.N, tree.Hash, index, hash); err != nil {
		return err
	}
	if index%7 != 0 && index != tree.N-1 {
		return nil
	}
	// Now the proof as the gateway gives it, by the other implementation.
	file, err := l.get(fmt.Sprintf("proofs/%d", index))
	if err != nil {
		return err
	}
	head, signed, found := strings.Cut(string(file), "\n\n")
	lines := strings.Split(head, "\n")
	extra := "extra " + base64.StdEncoding.EncodeToString(entries[index])
	named := fmt.Sprintf("index %d", index)
	if !found || len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" || lines[1] != extra || lines[2] != named {
		return errors.New("not a proof of this record")
	}
	later, err := open([]byte(signed), verifier)
	if err != nil {
		return err
	}
	hashes, err := decode(lines[3:])
	if err != nil {
		return err
	}
	hasher := rfc6962.DefaultHasher
	return proof.VerifyInclusion(hasher, uint64(index), uint64(later.N), hasher.HashLeaf(entries[index]), hashes, later.Hash[:])
}

func checkExtension(l log, tree tlog.Tree, reader tlog.HashReader, old int64) error {
	hash, err := tlog.TreeHash(old, reader)
	if err != nil {
		return err
	}
	path, err := tlog.ProveTree(tree.N, old, reader)
	if err != nil {
		return err
	}
	if err := tlog.CheckTree(path, tree.N, tree.Hash, old, hash); err != nil {
		return err
	}
	data, err := l.get(fmt.Sprintf("consistency?old=%d&new=%d", old, tree.N))
	if err != nil {
		return err
	}
	var said struct {
		Old, New uint64
		Proof    []string
	}
	if err := json.Unmarshal(data, &said); err != nil {
		return err
	}
	if said.Old != uint64(old) || said.New != uint64(tree.N) {
		return errors.New("a proof between other trees")
	}
	hashes, err := decode(said.Proof)
	if err != nil {
		return err
	}
	return proof.VerifyConsistency(rfc6962.DefaultHasher, said.Old, said.New, hashes, hash[:], tree.Hash[:])
}

func decode(lines []string) ([][]byte, error) {
	var hashes [][]byte
	for _, line := range lines {
		hash, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil {
			return nil, err
		}
		hashes = append(hashes, hash)
	}
	return hashes, nil
}
