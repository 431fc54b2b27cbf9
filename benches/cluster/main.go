// The webhook that the gate is measured against: it does what any webhook has to do, and decides nothing. It reads the review,
// writes a digest behind each image that has none, as the gate pins, and allows everything. TLS and HTTP/2 are those of Go's
// standard library, with their defaults.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
)

// As the gate's limit.
const maxReviewBytes = 8 << 20

type container struct {
	Image string `json:"image"`
}

type review struct {
	Request struct {
		UID    string `json:"uid"`
		Object struct {
			Spec struct {
				Containers          []container `json:"containers"`
				InitContainers      []container `json:"initContainers"`
				EphemeralContainers []container `json:"ephemeralContainers"`
			} `json:"spec"`
		} `json:"object"`
	} `json:"request"`
}

type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value string `json:"value"`
}

type response struct {
	UID       string `json:"uid"`
	Allowed   bool   `json:"allowed"`
	PatchType string `json:"patchType,omitempty"`
	Patch     []byte `json:"patch,omitempty"`
}

type answer struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Response   response `json:"response"`
}

func pins(r *review, digest string) []operation {
	spec := r.Request.Object.Spec
	lists := []struct {
		name       string
		containers []container
	}{
		{"containers", spec.Containers},
		{"initContainers", spec.InitContainers},
		{"ephemeralContainers", spec.EphemeralContainers},
	}
	var operations []operation
	for _, list := range lists {
		for index, one := range list.containers {
			if !strings.Contains(one.Image, "@") {
				path := fmt.Sprintf("/spec/%s/%d/image", list.name, index)
				operations = append(operations, operation{"replace", path, one.Image + "@" + digest})
			}
		}
	}
	return operations
}

func handler(digest string) http.HandlerFunc {
	return func(w http.ResponseWriter, request *http.Request) {
		var r review
		body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, maxReviewBytes))
		if err == nil {
			err = json.Unmarshal(body, &r)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		said := response{UID: r.Request.UID, Allowed: true}
		if digest != "" {
			if operations := pins(&r, digest); len(operations) > 0 {
				said.PatchType = "JSONPatch"
				if said.Patch, err = json.Marshal(operations); err != nil {
					http.Error(w, err.Error(), http.StatusInternalServerError)
					return
				}
			}
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(answer{"admission.k8s.io/v1", "AdmissionReview", said}); err != nil {
			log.Print(err)
		}
	}
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on")
	certificate := flag.String("certificate", "tls.crt", "certificate, PEM")
	key := flag.String("key", "tls.key", "its key, PEM")
	digest := flag.String("digest", "", "what is written behind each image")
	flag.Parse()
	http.HandleFunc("/mutate", handler(*digest))
	http.HandleFunc("/validate", handler(""))
	log.Fatal(http.ListenAndServeTLS(*listen, *certificate, *key, nil))
}
