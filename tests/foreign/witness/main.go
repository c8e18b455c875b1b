// Command witness is a C2SP tlog-witness of a log, and a reader of its trust policies, with nobody's code but the Go
// project's (golang.org/x/mod/sumdb) and the transparency-dev libraries' (formats, merkle). Its memory is its only store.
//
// Usage: witness serve NAME SEED LOG_VKEY...    SEED: 32 bytes, hex. It prints its own vkey and its URL, one line each.
//
//	witness check POLICY CHECKPOINT         exits with 0 where the checkpoint meets the tlog-policy's quorum.
package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"

	f_note "github.com/transparency-dev/formats/note"
	policy "github.com/transparency-dev/formats/witness"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	var err error
	switch {
	case len(os.Args) >= 5 && os.Args[1] == "serve":
		err = serve(os.Args[2], os.Args[3], os.Args[4:])
	case len(os.Args) == 4 && os.Args[1] == "check":
		err = check(os.Args[2], os.Args[3])
	default:
		fmt.Fprintln(os.Stderr, "usage: witness serve NAME SEED LOG_VKEY... | witness check POLICY CHECKPOINT")
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "refused:", err)
		os.Exit(1)
	}
}

func check(policyPath, checkpointPath string) error {
	text, err := os.ReadFile(policyPath)
	if err != nil {
		return err
	}
	checkpoint, err := os.ReadFile(checkpointPath)
	if err != nil {
		return err
	}
	group, err := policy.ParsePolicy(text)
	if err != nil {
		return err
	}
	if !group.Satisfied(checkpoint) {
		return errors.New("the checkpoint has no quorum")
	}
	return nil
}

func serve(name, seed string, logs []string) error {
	signer, vkey, err := cosigner(name, seed)
	if err != nil {
		return err
	}
	w := &witness{signer: signer}
	for _, log := range logs {
		verifier, err := note.NewVerifier(log)
		if err != nil {
			return err
		}
		w.origin, w.verifiers = verifier.Name(), append(w.verifiers, verifier)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("%s\nhttp://%s/w\n", vkey, listener.Addr())
	http.HandleFunc("POST /w/add-checkpoint", w.addCheckpoint)
	return http.Serve(listener, nil)
}

// cosigner makes the library's cosignature/v1 signer of a seed, by the signed-note signer keys of x/mod.
func cosigner(name, seed string) (note.Signer, string, error) {
	raw, err := hex.DecodeString(seed)
	if err != nil || len(raw) != ed25519.SeedSize {
		return nil, "", errors.New("the seed is not 32 bytes of hex")
	}
	skey, plain, err := note.GenerateKey(bytes.NewReader(raw), name)
	if err != nil {
		return nil, "", err
	}
	vkey, err := f_note.VKeyToCosignatureV1(plain)
	if err != nil {
		return nil, "", err
	}
	signer, err := f_note.NewSignerForCosignatureV1(skey)
	return signer, vkey, err
}

type witness struct {
	signer    note.Signer
	origin    string
	verifiers []note.Verifier
	mutex     sync.Mutex
	seen      tlog.Tree
}

func (w *witness) addCheckpoint(out http.ResponseWriter, in *http.Request) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	body, err := io.ReadAll(io.LimitReader(in.Body, 1<<20))
	if err != nil {
		http.Error(out, "unread", http.StatusBadRequest)
		return
	}
	old, hashes, signed, err := parse(body)
	if err != nil {
		http.Error(out, err.Error(), http.StatusBadRequest)
		return
	}
	if origin, _, _ := strings.Cut(string(signed), "\n"); origin != w.origin {
		http.Error(out, "unknown log", http.StatusNotFound)
		return
	}
	opened, err := note.Open(signed, note.VerifierList(w.verifiers...))
	if err != nil {
		http.Error(out, err.Error(), http.StatusForbidden)
		return
	}
	tree, err := parseTree(opened.Text)
	if err != nil || old > tree.N {
		http.Error(out, "not a checkpoint that follows", http.StatusBadRequest)
		return
	}
	w.judge(out, old, hashes, tree, opened.Text)
}

func (w *witness) judge(out http.ResponseWriter, old int64, hashes [][]byte, tree tlog.Tree, text string) {
	if old != w.seen.N {
		out.Header().Set("Content-Type", "text/x.tlog.size")
		out.WriteHeader(http.StatusConflict)
		fmt.Fprintf(out, "%d\n", w.seen.N)
		return
	}
	if old == tree.N && old != 0 && w.seen.Hash != tree.Hash {
		http.Error(out, "another tree of this size", http.StatusConflict)
		return
	}
	err := proof.VerifyConsistency(rfc6962.DefaultHasher, uint64(old), uint64(tree.N), hashes, w.seen.Hash[:], tree.Hash[:])
	if err != nil && old != 0 || old == 0 && len(hashes) != 0 {
		http.Error(out, "not consistent", http.StatusUnprocessableEntity)
		return
	}
	w.seen = tree
	cosigned, err := note.Sign(&note.Note{Text: text}, w.signer)
	if err != nil {
		http.Error(out, err.Error(), http.StatusInternalServerError)
		return
	}
	out.Write(cosigned[len(text)+1:])
}

func parse(body []byte) (int64, [][]byte, []byte, error) {
	head, signed, found := strings.Cut(string(body), "\n\n")
	lines := strings.Split(head, "\n")
	digits, isOld := strings.CutPrefix(lines[0], "old ")
	old, err := strconv.ParseInt(digits, 10, 64)
	if !found || !isOld || err != nil || strconv.FormatInt(old, 10) != digits || old < 0 || len(lines) > 64 {
		return 0, nil, nil, errors.New("not an add-checkpoint request")
	}
	var hashes [][]byte
	for _, line := range lines[1:] {
		hash, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil {
			return 0, nil, nil, err
		}
		hashes = append(hashes, hash)
	}
	return old, hashes, []byte(signed), nil
}

func parseTree(text string) (tlog.Tree, error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 4 {
		return tlog.Tree{}, errors.New("too short")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	hash, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: hash}, err
}
